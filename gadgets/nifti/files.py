"""The NIfTI files of a scan."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from gadgets.dicom.frames import Frame, Frames, common_value
from gadgets.dicom.stacks import Stack, stacks_of
from gadgets.dicom.values import Warn
from gadgets.dicom.writer import series_name
from gadgets.files import replace_file
from gadgets.nifti.sidecar import sidecar
from gadgets.nifti.volumes import nifti_image

COMPRESSION = 6  # of gzip
SUFFIXES = {"phase": "_ph", "real": "_real", "imaginary": "_imaginary"}  # by the kind of image; those of dcm2niix


def write_nifti(frames: Frames, folder: Path, warn: Warn) -> list[Path]:
    """Write the series of a scan, each stack of slices as `NAME.nii.gz` and `NAME.json`.

    NAME is that of the series' DICOM folder, with `_e2` where there are several echoes, `_i5`, the lowest
    InstanceNumber, where a series is more than one stack, and `_ph`, `_real` or `_imaginary`. Each file appears whole
    or not at all; folders have mode 0700, files 0600.

    Parameters
    ----------
    frames : those of the scan
    folder : where the files go; made if it is not there
    warn : takes a line for each series that is more than one stack

    Returns
    -------
    The NIfTI files.

    Raises
    ------
    OSError
        A file cannot be written.
    """
    paths = []
    for series in frames.series():
        stacks = stacks_of(series)
        _tell_of_parts(series, stacks, warn)
        for stack, name in zip(stacks, _names(stacks), strict=True):
            path = folder / f"{name}.nii.gz"
            content = nifti_image(stack, frames).to_bytes()
            replace_file(path, gzip.compress(content, COMPRESSION, mtime=0), private=True)
            text = json.dumps(sidecar(stack), indent=1, ensure_ascii=False)
            replace_file(folder / f"{name}.json", text.encode("utf-8", "replace"), private=True)
            paths.append(path)
    return paths


def _names(stacks: Sequence[Stack]) -> list[str]:
    """Names of the files of a series, without ending."""
    echoes = Counter(stack.first.contrast for stack in stacks)
    names = []
    for stack in stacks:
        first = stack.first
        name = series_name(first.dataset)
        if len(echoes) > 1:
            name += f"_e{first.contrast + 1}"
        if echoes[first.contrast] > 1:
            name += f"_i{stack.lowest_number}"
        names.append(name + SUFFIXES.get(first.output, ""))
    return names


def _tell_of_parts(series: Sequence[Frame], stacks: Sequence[Stack], warn: Warn) -> None:
    """Say why a series is several files though it has one echo, and which slices are at one place."""
    number = common_value(series, "SeriesNumber")
    if len(stacks) > len({stack.first.contrast for stack in stacks}):
        warn(
            f"series {number}: its slices are no regular grid (distances, directions or sizes differ, or volumes lack "
            f"slices); it is written as {len(stacks)} files, each of which is one"
        )
    if any(len(volume) > len(set(volume)) for stack in stacks for volume in _counters(stack)):
        warn(f"series {number}: several slices are at one place; they are volumes of one file")


def _counters(stack: Stack) -> list[list[tuple[int, ...]]]:
    """For each place, the counters of its frames in all volumes."""
    return [[volume[z].volume for volume in stack.volumes] for z in range(stack.shape[2])]

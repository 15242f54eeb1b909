"""DICOM files, one folder a series; only the user who writes them can read them."""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import re
import unicodedata
from pathlib import Path

import ismrmrd
from ismrmrd.xsd import ismrmrdHeader
from pydicom import dcmread
from pydicom.dataset import Dataset, FileDataset
from pydicom.errors import InvalidDicomError

from gadgets.dicom.datasets import dicom_datasets
from gadgets.dicom.parameters import DicomParameters
from gadgets.dicom.values import Warn
from gadgets.files import replace_file
from gadgets.stream import ReconError, reason_of

log = logging.getLogger("genrecon")


def _safe_name(text: str) -> str:
    """Text as part of a file name on any system: ASCII letters, digits, '-' and '_' only."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9-]+", "_", plain).strip("_-")[:48] or "series"


def _holds_other_image(path: Path, uid: str) -> bool:
    if not path.exists():
        return False
    with contextlib.suppress(InvalidDicomError, OSError, AttributeError, ValueError):
        return bool(dcmread(path, specific_tags=["SOPInstanceUID"]).SOPInstanceUID != uid)
    return False


def series_name(ds: Dataset) -> str:
    """Name of a series for folders and files: number, description, digest of its UID: no other series has it."""
    series = hashlib.sha256(ds.SeriesInstanceUID.encode()).hexdigest()[:8]
    return f"{int(ds.SeriesNumber):04d}_{_safe_name(ds.SeriesDescription)}_{series}"


def _file_path(folder: Path, ds: Dataset) -> Path:
    path = folder / series_name(ds) / f"IM_{int(ds.InstanceNumber):05d}.dcm"
    if _holds_other_image(path, ds.SOPInstanceUID):  # counters beyond their limits: one number, two images
        image = hashlib.sha256(ds.SOPInstanceUID.encode()).hexdigest()[:8]
        path = path.with_name(f"{path.stem}_{image}.dcm")
    return path


def encoded(ds: FileDataset) -> bytes:
    """The dataset as a DICOM Part 10 file."""
    buffer = io.BytesIO()
    ds.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def write_datasets(datasets: list[FileDataset], contents: list[bytes], parameters: DicomParameters) -> list[Path]:
    """Write datasets, each with its encoded form, below `parameters.folder`. Raises ReconError when it cannot."""
    if not parameters.folder.strip():
        raise ReconError("DicomOutput: property 'folder' is empty; name the folder for the DICOM files")
    paths = []
    try:
        folder = Path(parameters.folder.strip()).expanduser()
        for ds, content in zip(datasets, contents, strict=True):
            path = _file_path(folder, ds)
            replace_file(path, content, private=True)
            paths.append(path)
    except (OSError, RuntimeError) as error:  # RuntimeError: expanduser finds no home
        raise ReconError(
            f"DicomOutput: cannot write to folder '{parameters.folder}' ({reason_of(error)}); "
            "free disk space there or set the property 'folder' to a folder that can be written to"
        ) from None
    return paths


def write_dicom(
    image: ismrmrd.Image,
    header: ismrmrdHeader,
    parameters: DicomParameters | None = None,
    warn: Warn = log.warning,
) -> list[Path]:
    """Write an ISMRMRD image as DICOM Part 10 files, `folder/SERIES_description_hash/IM_00001.dcm`.

    The hash is of the SeriesInstanceUID: scans never share a series folder, a replay writes the same files again. Each
    file appears whole under its name or not at all. Folders have mode 0700, files 0600. See `dicom_datasets` for the
    content and the arguments.

    Returns
    -------
    list of pathlib.Path
        The files, one a partition and channel.

    Raises
    ------
    ReconError
        If the image cannot be DICOM (see `dicom_datasets`) or the folder cannot be written to.
    """
    parameters = parameters or DicomParameters()
    datasets = dicom_datasets(image, header, parameters, warn)
    return write_datasets(datasets, [encoded(ds) for ds in datasets], parameters)

"""A summary of a raw file, without patient data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from gadgets.acquisition_flags import is_calibration_only, is_for_images, kinds
from gadgets.errors import counted
from gadgets.noise.quality import noise_quality
from gadgets.noise.scan import noise_dependencies
from gadgets.stream import ReconError
from pipelines.noise.files import noise_among, noise_of_lines
from pipelines.raw import RawScan, measurements
from pipelines.raw.measurements import UnclearMeasurement
from pipelines.survey import announced_and_found

COUNTERS = ("slice", "contrast", "phase", "set", "average", "repetition")


def describe(path: str | Path, group: str = "") -> list[tuple[str, str]]:
    """Names and texts that describe a raw file, or one of several measurements in it, without patient data.

    Of a file with several, those are listed first; where it is not clear which one is the scan, there is nothing more.

    Raises ReconError when the file cannot be used (see `RawScan`).
    """
    found = [("measurement", str(one)) for one in measurements(path)]
    try:
        with RawScan(path, group) as scan:
            return [*found, *describe_scan(scan), *(("warning", text) for text in scan.warnings)]
    except UnclearMeasurement:
        return [*found, ("scan", "more than one, or none: choose a measurement with --group NAME")]


def describe_scan(scan: RawScan) -> list[tuple[str, str]]:
    """As `describe`, of a file that is open."""
    heads = scan.heads()
    found = announced_and_found(scan.survey(), scan.header)
    return [*scan.notes(), *_header(scan.header), *_acquisitions(heads, scan.header), *found, *_noise(scan, heads)]


def _noise(scan: RawScan, heads: Any) -> list[tuple[str, str]]:
    """Noise lines, and what the header says of noise that was measured before."""
    noise = heads[scan.noise_flags]
    rows = []
    if len(noise):
        sizes = [
            f"{' or '.join(f'{value:g}' for value in np.unique(noise[name]))} {unit}"
            for name, unit in (("active_channels", "coils"), ("number_of_samples", "samples"), ("sample_time_us", "us"))
        ]
        rows.append(("noise", f"{counted(len(noise), 'line')}, {', '.join(sizes)}"))
        try:
            lines = scan.noise_lines(scan.noise_flags)
            rows += noise_quality(noise_of_lines(lines, scan.header, str(scan.path))).rows()
        except ReconError as error:
            rows.append(("noise warning", str(error).removeprefix(f"{scan.path}: ")))
    if wanted := noise_dependencies(scan.header):
        found = noise_among(scan.path, scan.measurements, wanted)
        where = f"in this file, {found.name}" if found and found.measurement in wanted else "not in this file"
        rows.append(("noise named", f"measurement {wanted[0]}, {where}"))
    return rows or [("noise", "none")]


def _header(header: Any) -> list[tuple[str, str]]:
    rows = []
    system = header.acquisitionSystemInformation
    if system:
        name = " ".join(filter(None, (system.systemVendor, system.systemModel)))
        field = f"{system.systemFieldStrength_T:.3g} T" if system.systemFieldStrength_T else ""
        rows.append(("scanner", ", ".join(filter(None, (name, field))) or "not given"))
    measurement = header.measurementInformation
    if measurement and measurement.protocolName:
        rows.append(("protocol", measurement.protocolName))
    for number, encoding in enumerate(header.encoding):
        for label, space in (("encoded", encoding.encodedSpace), ("reconstructed", encoding.reconSpace)):
            matrix, extent = space.matrixSize, space.fieldOfView_mm
            rows.append(
                (
                    f"{label} space {number}",
                    f"{matrix.x} x {matrix.y} x {matrix.z}, {extent.x:g} x {extent.y:g} x {extent.z:g} mm",
                )
            )
        limits = [
            f"{name} {limit.minimum}..{limit.maximum} (centre {limit.center})"
            for name in ("kspace_encoding_step_1", "kspace_encoding_step_2")
            if (limit := getattr(encoding.encodingLimits, name)) and limit.maximum
        ]
        rows.append((f"encoding limits {number}", ", ".join(limits) or "not given"))
        parallel = encoding.parallelImaging
        if parallel:
            factor = parallel.accelerationFactor
            mode = parallel.calibrationMode
            rows.append(
                (
                    f"parallel imaging {number}",
                    f"{factor.kspace_encoding_step_1} x {factor.kspace_encoding_step_2}, calibration "
                    f"{getattr(mode, 'value', mode) or 'not given'}",
                )
            )
    sequence = header.sequenceParameters
    if sequence:
        values = [
            f"{label} {', '.join(f'{value:g}' for value in entries)} {unit}"
            for label, entries, unit in (
                ("TR", sequence.TR, "ms"),
                ("TE", sequence.TE, "ms"),
                ("TI", sequence.TI, "ms"),
                ("flip", sequence.flipAngle_deg, "degrees"),
            )
            if entries
        ]
        rows.append(("sequence", ", ".join(filter(None, [sequence.sequence_type, *values]))))
    return rows


def _acquisitions(heads: Any, header: Any) -> list[tuple[str, str]]:
    flags = heads["flags"]

    def flagged(bits: int) -> Any:
        return flags & np.uint64(bits) > 0

    counts = [f"{int(flagged(bits).sum())} {kind}" for kind, bits in kinds().items() if flagged(bits).any()]
    rows = [("acquisitions", ", ".join([str(len(heads)), *counts]))]
    imaging = heads[[is_for_images(bits) and not is_calibration_only(bits) for bits in flags.tolist()]]
    if not len(imaging):
        return [*rows, ("imaging", "none")]

    def span(values: Any) -> str:
        return " or ".join(str(value) for value in np.unique(values))

    rows.append(("coils", span(imaging["active_channels"])))
    rows.append(("samples", f"{span(imaging['number_of_samples'])}, centre {span(imaging['center_sample'])}"))
    counters = imaging["idx"]
    lengths = {name: len(np.unique(counters[name])) for name in COUNTERS}
    loops = [f"{length} {name}s" for name, length in lengths.items() if length > 1]
    rows.append(("loops", ", ".join(loops) or "one image"))
    spaces, lines = np.unique(imaging["encoding_space_ref"], return_counts=True)
    space = int(spaces[lines.argmax()])  # of most lines
    imaging = imaging[imaging["encoding_space_ref"] == space]
    matrix = header.encoding[min(space, len(header.encoding) - 1)].encodedSpace.matrixSize
    encodings = matrix.y * matrix.z
    measured = len(np.unique(imaging["idx"][["kspace_encode_step_1", "kspace_encode_step_2"]]))
    rows.append(("sampling", f"{measured} of {encodings} phase encodings ({encodings / measured:.2f}-fold)"))
    return rows

"""Small raw files whose truth is known: a ball with a bright marker, seen by four coils, in patient coordinates (mm).

    write(path, (header(), lines(kspace())))
    result, datasets = replay(path, folder)
    assert marker(datasets[0]) == pytest.approx(MARKER, abs=0.2)

k-space is the explicit Fourier sum over points of the object; no code of the package makes it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import ismrmrd
import numpy as np
import pydicom

from pipelines.replay import ReplayResult
from pipelines.replay import replay as run

Vector = Sequence[float]

AXIAL = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))  # read, phase and slice direction
MARKER = (18.0, -11.0, 0.0)
BALL = ((0.0, 0.0, 0.0), 45.0, 1.0)  # centre in mm, radius in mm, intensity
OBJECT = (BALL, (MARKER, 6.0, 1.5))
COILS = ((67.0, 21.0, 20.0), (-23.0, 66.0, -20.0), (-68.0, -18.0, 15.0), (20.0, -67.0, -15.0))  # mm
COIL_WIDTH = 75.0  # mm
GRID = 0.5  # mm between the points of the object, of a slice
SLAB_GRID = 1.5
LIMITS = {"kspace_encoding_step_1": (0, 63, 32)}
COUNTERS = {name for name, _ in ismrmrd.EncodingCounters._fields_}


def kspace(
    position: Vector = (0.0, 0.0, 0.0),
    axes: Sequence[Vector] = AXIAL,
    objects: Iterable[tuple[Vector, float, float]] = OBJECT,
    samples: tuple[int, ...] = (128, 64),
    extent: Vector = (300.0, 150.0),
    phase: Callable[[Any], Any] | None = None,
) -> Any:
    """k-space of a thin slice, (coil, phase, read), or of a slab, (coil, slice, phase, read), complex64.

    Parameters
    ----------
    position : patient position of the centre of the field of view in mm
    axes : read, phase and slice direction
    objects : balls: centre in patient coordinates and radius in mm, intensity; they add up
    samples : samples along read, phase and, of a slab, slice; sample n // 2 is the centre of k-space
    extent : what the steps of k-space encode along each, in mm
    phase : of the object in rad, of patient positions (..., 3) in mm; None: 0
    """
    grid = GRID if len(samples) == 2 else SLAB_GRID
    widths = (150.0, 150.0, *extent[2:])
    points = [np.arange((grid - width) / 2, width / 2, grid) for width in widths]
    place = np.asarray(position, float) + sum(
        along[..., None] * np.asarray(axis)
        for along, axis in zip(np.meshgrid(*points, indexing="ij"), axes, strict=False)
    )
    image = sum(value * (np.linalg.norm(place - centre, axis=-1) < radius) for centre, radius, value in objects)
    coils = np.stack(
        [
            np.exp(-((place - coil) ** 2).sum(-1) / (2 * COIL_WIDTH**2) + 1.3j * number)
            for number, coil in enumerate(COILS)
        ]
    )
    data = image * coils * (1 if phase is None else np.exp(1j * phase(place)))
    for axis, (along, count, length) in enumerate(zip(points, samples, extent, strict=True), 1):
        steps = (np.arange(count) - count // 2) / length
        data = np.moveaxis(np.tensordot(np.exp(-2j * np.pi * np.outer(steps, along)), data, (1, axis)), 0, axis)
    return data.swapaxes(1, -1).astype(np.complex64) * grid ** len(samples) / 25


def noise(shape: tuple[int, ...] = (4, 128), level: float = 1.0, seed: int = 0) -> Any:
    """Complex white noise of a standard deviation, complex64."""
    parts = np.random.default_rng(seed).standard_normal((2, *shape))
    return (level / np.sqrt(2) * (parts[0] + 1j * parts[1])).astype(np.complex64)


def header(
    *,
    encoded: Vector = (128, 64, 1),
    encoded_extent: Vector = (300, 150, 5),
    recon: Vector = (64, 64, 1),
    recon_extent: Vector = (150, 150, 5),
    limits: Mapping[str, tuple[int, int, int]] | None = None,
    trajectory: str | None = "cartesian",
    patient_position: str | None = "HFS",
    protocol: str = "scan",
    measurement_id: str | None = "1_2_3_4",
    identity: bool = True,
    in_measurement: str = "",
    in_encoding: str = "",
    after: str = "",
) -> str:
    """The XML header of one Cartesian encoding; None leaves an element out.

    Parameters
    ----------
    limits : minimum, maximum and centre of counters, besides those of 64 phase encodings; see also `in_encoding`
    identity : whether it names a patient and a study
    in_measurement, in_encoding, after : further XML inside measurementInformation, encoding, and at the end
    """
    text = '<?xml version="1.0"?><ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD">'
    if identity:
        text += (
            "<subjectInformation><patientName>TEST^CASE</patientName><patientID>P1</patientID></subjectInformation>"
            "<studyInformation><studyDate>2024-03-01</studyDate><studyTime>10:00:00</studyTime></studyInformation>"
        )
    text += (
        f"<measurementInformation>{_element('measurementID', measurement_id)}"
        f"{_element('patientPosition', patient_position)}{_element('protocolName', protocol)}{in_measurement}"
        "</measurementInformation><experimentalConditions><H1resonanceFrequency_Hz>123000000"
        "</H1resonanceFrequency_Hz></experimentalConditions>"
    )
    spaces = (("encodedSpace", encoded, encoded_extent), ("reconSpace", recon, recon_extent))
    return text + encoding(spaces, LIMITS | dict(limits or {}), trajectory, in_encoding) + after + "</ismrmrdHeader>"


def encoding(
    spaces: Sequence[tuple[str, Vector, Vector]],
    limits: Mapping[str, tuple[int, int, int]] = LIMITS,
    trajectory: str | None = "cartesian",
    more: str = "",
) -> str:
    """One encoding element: `spaces` are (element name, matrix, field of view in mm)."""
    text = _element("trajectory", trajectory)
    for name, matrix, extent in spaces:
        text += (
            f"<{name}><matrixSize>{_axes(matrix)}</matrixSize><fieldOfView_mm>{_axes(extent)}</fieldOfView_mm></{name}>"
        )
    text += "<encodingLimits>"
    for name, (first, last, centre) in limits.items():
        text += f"<{name}><minimum>{first}</minimum><maximum>{last}</maximum><center>{centre}</center></{name}>"
    return f"<encoding>{text}</encodingLimits>{more}</encoding>"


def _element(name: str, text: str | None) -> str:
    return "" if text is None else f"<{name}>{text}</{name}>"


def _axes(values: Vector) -> str:
    return "".join(_element(name, str(value)) for name, value in zip("xyz", values, strict=True))


def line(
    data: Any,
    step: int,
    *,
    flags: Iterable[int] = (),
    position: Vector = (0.0, 0.0, 0.0),
    axes: Sequence[Vector] = AXIAL,
    **fields: int,
) -> ismrmrd.Acquisition:
    """One readout, data (coil, sample), at a phase encoding; `fields` are counters or fields of its header by name."""
    coils, samples = data.shape
    head = ismrmrd.AcquisitionHeader()
    head.version = 1
    head.active_channels = head.available_channels = coils
    head.number_of_samples = samples
    head.center_sample = samples // 2
    head.sample_time_us = 5.0
    head.position[:] = position
    head.read_dir[:], head.phase_dir[:], head.slice_dir[:] = axes
    head.idx.kspace_encode_step_1 = step
    for name, value in fields.items():
        setattr(head.idx if name in COUNTERS else head, name, value)
    acquisition = ismrmrd.Acquisition(head, np.ascontiguousarray(data, np.complex64))
    for flag in flags:
        acquisition.set_flag(flag)
    return acquisition


def lines(data: Any, steps: Iterable[int] | None = None, **fields: Any) -> list[ismrmrd.Acquisition]:
    """The readouts of a slice, data (coil, phase, read), at `steps` (all); first and last of the slice are flagged."""
    chosen = list(range(data.shape[1]) if steps is None else steps)
    result = [line(data[:, step], step, **fields) for step in chosen]
    result[0].set_flag(ismrmrd.ACQ_FIRST_IN_SLICE)
    result[-1].set_flag(ismrmrd.ACQ_LAST_IN_SLICE)
    return result


def write(path: str | Path, *measurements: tuple[Any, ...]) -> Path:
    """Write measurements (header, acquisitions[, group]) to one new file; the default group is `dataset`."""
    Path(path).unlink(missing_ok=True)
    for text, acquisitions, *names in measurements:
        group = names[0] if names else "dataset"
        with ismrmrd.File(str(path), "a") as file:
            file[group].acquisitions = acquisitions
        with h5py.File(path, "a") as file:
            file.create_dataset(f"{group}/xml", (1,), dtype=h5py.special_dtype(vlen=bytes))[0] = text.encode()
    return Path(path)


def replay(
    path: str | Path, folder: str | Path, *settings: str, config: str = "cg_sense", **options: Any
) -> tuple[ReplayResult, list[Any]]:
    """Replay a file in process; its account, and its DICOM datasets by series and instance number."""
    result = run(path, config, folder, settings=list(settings), **options)
    datasets = [pydicom.dcmread(file) for file in Path(folder).rglob("*.dcm")]
    return result, sorted(datasets, key=lambda dataset: (dataset.SeriesNumber, dataset.InstanceNumber))


def pixels(dataset: Any) -> Any:
    """Values of a DICOM image, float (y, x)."""
    return dataset.pixel_array * float(dataset.get("RescaleSlope", 1)) + float(dataset.get("RescaleIntercept", 0))


def marker(dataset: Any) -> Any:
    """Patient position (x, y, z) in mm of the bright marker of a DICOM image."""
    values = pixels(dataset)
    excess = np.clip(values - 0.7 * values.max(), 0, None)
    rows, columns = np.indices(values.shape)
    across, down = np.reshape(np.array(dataset.ImageOrientationPatient, float), (2, 3))
    spacing = np.array(dataset.PixelSpacing, float)
    return (
        np.array(dataset.ImagePositionPatient, float)
        + (columns * excess).sum() / excess.sum() * spacing[1] * across
        + (rows * excess).sum() / excess.sum() * spacing[0] * down
    )

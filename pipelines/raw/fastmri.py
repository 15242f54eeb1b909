"""fastMRI files: the k-space of a 2D scan as one array in HDF5, with the header of the raw data it was made from.

Datasets `kspace`, complex (slice, coil, readout, phase), (slice, readout, phase) of one coil, or, of the prostate data,
(average, slice, coil, readout, phase); `ismrmrd_header`; in undersampled files `mask`, over the phase axis. Along that
the k-space centre is at n // 2, and phase encodings that were never measured are zero (Zbontar et al.,
arXiv:1811.08839; Tibrewala et al., arXiv:2304.09254). Other writers of this layout have readout and phase the other
way round, which the header's matrix tells.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import ismrmrd
import numpy as np
from ismrmrd import xsd
from ismrmrd.hdf5 import acquisition_header_dtype

from gadgets.stream import ReconError
from pipelines.raw.hdf5 import open_hdf5, readable
from pipelines.raw.header import read_header
from pipelines.raw.measurements import Measurement

log = logging.getLogger("genrecon")

AXES = "(slice, coil, readout, phase); of one coil (slice, readout, phase)"
NO_POSITIONS = (
    "it has no slice positions and directions; slices are put one thickness apart, from 0 mm on, the readout from left "
    "to right (the transpose of fastMRI's own images)"
)

Array = np.ndarray[Any, np.dtype[Any]]


def is_fastmri(path: Path) -> bool:
    """Whether a file is HDF5 with the datasets of fastMRI."""
    try:
        with h5py.File(path, "r") as file:
            return any(isinstance(file.get(name), h5py.Dataset) for name in ("kspace", "ismrmrd_header"))
    except (OSError, RuntimeError, LookupError):
        return False


class FastMriScan:
    """The header and the acquisitions of a fastMRI file, as those of an ISMRMRD file; one slice in memory at a time.

    A phase encoding is an acquisition where a sample of it is not zero and the mask, if there is one, has it. The
    header that is handed on says what the array holds; `patient_id` and `acquisition` of the file stand in for a
    patient ID and a protocol name that it lacks. The file has no orientation: directions are zero, the first slice is
    at 0 mm, and each is one slice thickness from the one before.

    Raises ReconError when the file cannot be read, or its array, mask and header do not belong together.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.measurements: list[Measurement] = []  # it has one
        self.warnings: list[str] = []
        self._file = open_hdf5(path)
        try:
            with readable(path, "the file"):
                self._kspace = self._find_kspace()
                read = read_header(path, self._header_text())
                header = read.fields
                attributes = {name: _text(self._file.attrs.get(name)) for name in ("patient_id", "acquisition")}
            self.notes = [*read.warnings, *self._find_axes(header)]
            with readable(path, "mask"):
                mask = self._find_mask()
            self._announced = header.encoding[0].encodingLimits.kspace_encoding_step_1
            matrix = header.encoding[0].encodedSpace.matrixSize.y
            averages, slices, coils, _, columns = self._sizes
            self._first, self._spacing = fit_header(header, averages, slices, coils, columns)
            add_identity(header, attributes["patient_id"], attributes["acquisition"])
            self.header_xml = header.toXML().encode()
            # bool (slice, average, column)
            self._lines = np.array([[self._measured(s, a) for a in range(averages)] for s in range(slices)])
            if mask is not None:
                self.notes += self._apply_mask(mask)
            self.notes += self._check_columns(matrix)
            empty = np.flatnonzero(~self._lines.any((1, 2)))
            if 0 < len(empty) < len(self._lines):
                numbers = ", ".join(map(str, empty))
                self.notes.append(f"slices without samples, of which there is no image: {numbers}")
        except BaseException:
            self._file.close()
            raise

    def _find_kspace(self) -> h5py.Dataset:
        kspace = self._file.get("kspace")
        if not isinstance(kspace, h5py.Dataset):
            raise ReconError(f"{self.path}: it has ismrmrd_header of a fastMRI file, but no kspace; copy it again")
        if kspace.dtype.kind != "c" or kspace.ndim not in (3, 4, 5) or 0 in kspace.shape:
            raise ReconError(
                f"{self.path}: kspace is {_sizes(kspace.shape)} of {kspace.dtype}; that of a fastMRI file is complex, "
                f"{AXES}"
            )
        return kspace

    def _find_mask(self) -> Array | None:
        """The mask (slice or 1, 1, phase), None without."""
        mask = self._file.get("mask")
        if mask is None:
            return None
        slices, columns = self._sizes[1], self._sizes[4]
        values = np.asarray(mask[()])
        shape = tuple(size for size in values.shape if size > 1) or (1,)
        if shape not in {(columns,), (slices, columns)} or values.dtype.kind not in "biuf":
            raise ReconError(
                f"{self.path}: mask is {_sizes(values.shape)} of {values.dtype}, kspace has {columns} phase encodings; "
                "give a mask over the phase encodings"
            )
        return values.reshape(-1, 1, columns) != 0

    def _header_text(self) -> bytes:
        if "ismrmrd_header" not in self._file:
            raise ReconError(
                f"{self.path}: it has kspace and no ismrmrd_header; a fastMRI file has both, other arrays are read as "
                ".npy by benchmark and train"
            )
        text = np.ravel(self._file["ismrmrd_header"][()])[0]
        return text.encode() if isinstance(text, str) else bytes(text)

    def _find_axes(self, header: Any) -> list[str]:
        """Set the sizes (average, slice, coil, readout, phase), and say where header and array differ.

        Raises ReconError when the axes are in another order than fastMRI's.
        """
        if not header.encoding:
            raise ReconError(f"{self.path}: header has no encoding section; convert the raw data again")
        shape = self._kspace.shape
        samples = header.encoding[0].encodedSpace.matrixSize.x
        self._swapped = shape[-2] != samples == shape[-1]
        readout, columns = (shape[-1], shape[-2]) if self._swapped else shape[-2:]
        averages, slices, *coils = [1] * (len(shape) < 5) + list(shape[:-2])
        self._sizes = (averages, slices, coils[0] if coils else 1, readout, columns)
        notes = []
        if self._swapped:
            notes.append(
                f"the last axis of kspace ({_sizes(shape)}) has the {samples} samples of the header's readout, not the "
                "phase encodings as fastMRI's; it is taken for that"
            )
        system, limits = header.acquisitionSystemInformation, header.encoding[0].encodingLimits
        announced = (
            system.receiverChannels if system else None,
            limits.slice.maximum - limits.slice.minimum + 1 if limits and limits.slice else None,
        )
        if not coils or not announced[0] or announced[0] == coils[0]:
            return notes
        if announced == (slices, coils[0]):
            raise ReconError(
                f"{self.path}: kspace is {_sizes(shape)}, the header has {announced[0]} coils and {announced[1]} "
                f"slices; reorder it to {AXES}"
            )
        return [*notes, f"the header has {announced[0]} coils, kspace has {coils[0]}"]

    def _slice(self, number: int, average: int) -> Array:
        """k-space (coil, readout, phase) of a slice, complex64."""
        place = (average, number) if self._kspace.ndim == 5 else number
        with readable(self.path, f"slice {number} of kspace"):
            data = np.asarray(self._kspace[place], np.complex64)
        data = data[None] if data.ndim == 2 else data
        return data.swapaxes(1, 2) if self._swapped else data

    def _measured(self, number: int, average: int) -> Array:
        """Which phase encodings of a slice are not zero."""
        place = (average, number) if self._kspace.ndim == 5 else (number,)
        coil = () if self._kspace.ndim == 3 else (0,)
        line = (slice(None),) * self._swapped + (self._sizes[3] // 2,)
        with readable(self.path, f"slice {number} of kspace"):
            found = self._kspace[place + coil + line] != 0
        # in most slices a sample of each line says it all
        return found if found.all() else np.any(self._slice(number, average) != 0, axis=(0, 1))

    def _apply_mask(self, mask: Array) -> list[str]:
        """Leave out lines that the mask leaves out; what is said of them."""
        left_out = int((self._lines & ~mask).sum())
        self._lines &= mask
        if not self._lines.any():
            raise ReconError(f"{self.path}: no phase encoding of its mask has samples; correct mask or kspace")
        return [f"{left_out} lines that have samples are not in the mask and are left out"] if left_out else []

    def _check_columns(self, matrix: int) -> list[str]:
        """What is said of lines that lie outside the header's limits, of an array with all lines of its matrix."""
        found, limit = np.flatnonzero(self._lines.any((0, 1))), self._announced
        if limit is None or matrix != self._lines.shape[2] or not len(found):
            return []
        first = matrix // 2 - (limit.center - limit.minimum)
        last = first + limit.maximum - limit.minimum
        if first <= found[0] and found[-1] <= last:
            return []
        return [
            f"its phase encodings are in columns {found[0]}..{found[-1]}, by the header's limits in {first}..{last}; "
            f"the k-space centre is taken to be column {matrix // 2}"
        ]

    @property
    def acquisition_count(self) -> int:
        """How many lines it has."""
        return int(self._lines.sum())

    def acquisitions(self, chosen: Sequence[bool] | None = None) -> Iterator[tuple[int, ismrmrd.Acquisition]]:
        """Yield the chosen acquisitions (None: all) and their places in the scan, a slice in memory at a time."""
        for text in (*self.notes, NO_POSITIONS):
            log.warning("fastMRI file: %s", text)
        start = 0
        for number, average in np.ndindex(self._lines.shape[:2]):
            columns = np.flatnonzero(self._lines[number, average])
            indices = [index for index in range(start, start + len(columns)) if chosen is None or chosen[index]]
            if indices:
                data = self._slice(number, average)
                for index in indices:
                    column = int(columns[index - start])
                    head = self._head(index, number, average, column)
                    yield index, ismrmrd.Acquisition(head, np.ascontiguousarray(data[:, :, column]))
            start += len(columns)

    def _head(self, index: int, number: int, average: int, column: int) -> ismrmrd.AcquisitionHeader:
        lines = self._lines
        head = ismrmrd.AcquisitionHeader()
        head.version = 1
        head.scan_counter = index
        head.available_channels = head.active_channels = self._sizes[2]
        head.number_of_samples = self._sizes[3]
        head.center_sample = self._sizes[3] // 2
        head.idx.kspace_encode_step_1 = self._first + column
        head.idx.slice = number
        head.idx.average = average
        head.position[2] = number * self._spacing
        if not lines[number, :average].any() and not lines[number, average, :column].any():
            head.set_flag(ismrmrd.ACQ_FIRST_IN_SLICE)
        if not lines[number, average + 1 :].any() and not lines[number, average, column + 1 :].any():
            head.set_flag(ismrmrd.ACQ_LAST_IN_SLICE)
            if not lines[number + 1 :].any():
                head.set_flag(ismrmrd.ACQ_LAST_IN_REPETITION)
                head.set_flag(ismrmrd.ACQ_LAST_IN_MEASUREMENT)
        return head

    def heads(self) -> Any:
        """All acquisition headers as one structured array."""
        return self._heads.copy()

    @functools.cached_property
    def _heads(self) -> Any:
        places = enumerate(np.argwhere(self._lines).tolist())
        return np.frombuffer(
            b"".join(bytes(self._head(index, *place)) for index, place in places),
            acquisition_header_dtype,
        )

    def describe(self) -> list[tuple[str, str]]:
        """What `genrecon info` says of the array."""
        names = {3: ["slice"], 4: ["slice", "coil"], 5: ["average", "slice", "coil"]}[self._kspace.ndim]
        axes = ", ".join(names + (["phase", "readout"] if self._swapped else ["readout", "phase"]))
        found = np.flatnonzero(self._lines.any((0, 1)))
        limit = self._announced
        announced = f"{limit.minimum}..{limit.maximum} (centre {limit.center})" if limit else "none"
        rows = [
            ("file", f"fastMRI, kspace {_sizes(self._kspace.shape)} ({axes}), no slice positions and directions"),
            (
                "phase encodings",
                f"{len(found)} in columns {found[0]}..{found[-1]} of {self._lines.shape[2]}; the header's limits are "
                f"{announced}",
            ),
        ]
        return rows + [("note", text) for text in self.notes]

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def fit_header(header: Any, averages: int, slices: int, coils: int, columns: int) -> tuple[int, float]:
    """Make a header say, in place, what an array of k-space has.

    Parameters
    ----------
    header : ismrmrd.xsd.ismrmrdHeader with an encoding; others than the first are left out
    averages, slices, coils, columns : sizes of the array; columns are phase encodings

    Returns
    -------
    Phase encoding counter of the first column, and the slice thickness in mm. The steps of k-space stay those of the
    header's field of view. An array that has just the lines of the header's limits keeps their counters; in any other
    the k-space centre is column n // 2.
    """
    encoding = header.encoding[0]
    header.encoding = [encoding]
    encoded, recon, limits = encoding.encodedSpace, encoding.reconSpace, encoding.encodingLimits
    thickness = recon.fieldOfView_mm.z / max(recon.matrixSize.z, 1)
    for space in (encoded, recon):
        space.matrixSize.z, space.fieldOfView_mm.z = 1, thickness
    step = limits.kspace_encoding_step_1 if limits else None
    matrix = encoded.matrixSize.y
    if not (
        step
        and columns == step.maximum - step.minimum + 1 < matrix
        and step.minimum <= step.center <= step.maximum
        and step.center - step.minimum <= matrix // 2
        and step.maximum - step.center < matrix - matrix // 2
    ):
        step = xsd.limitType(minimum=0, maximum=columns - 1, center=columns // 2)
        encoded.matrixSize.y = columns
    one = xsd.limitType(minimum=0, maximum=0, center=0)
    others = ("kspace_encoding_step_2", "contrast", "phase", "repetition", "set", "segment")
    encoding.encodingLimits = xsd.encodingLimitsType(
        kspace_encoding_step_1=step,
        slice=xsd.limitType(minimum=0, maximum=slices - 1, center=0),
        average=xsd.limitType(minimum=0, maximum=averages - 1, center=0),
        **dict.fromkeys(others, one),
    )
    if encoding.parallelImaging:
        encoding.parallelImaging.calibrationMode = None  # no line of the array is only for calibration
    if header.acquisitionSystemInformation:
        header.acquisitionSystemInformation.receiverChannels = coils
    return int(step.minimum), float(thickness)


def add_identity(header: Any, patient_id: str, acquisition: str) -> None:
    """Put a patient ID and a protocol name in a header, in place, that it lacks; empty ones are left out."""
    if patient_id and not (header.subjectInformation and header.subjectInformation.patientID):
        header.subjectInformation = header.subjectInformation or xsd.subjectInformationType()
        header.subjectInformation.patientID = patient_id
    if acquisition and header.measurementInformation and not header.measurementInformation.protocolName:
        header.measurementInformation.protocolName = acquisition


def _text(value: Any) -> str:
    """An attribute of a file as a text that can stand in XML, empty where it is none."""
    text = value.decode(errors="replace") if isinstance(value, bytes) else value if isinstance(value, str) else ""
    return "".join(letter for letter in text if letter.isprintable()).strip()


def _sizes(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))

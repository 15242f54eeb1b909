"""Frames: the images of a scan until its end, for files that hold whole series; their pixels are on the disk."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any

import ismrmrd
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from gadgets.dicom.times import TICK_S
from gadgets.image_values import output_of

IN_MEMORY = 16 * 2**20  # bytes of pixels above which they go to the disk
PIXEL_KEYWORDS = ("PixelData", "SmallestImagePixelValue", "LargestImagePixelValue")
VOLUME_COUNTERS = ("repetition", "average", "set", "phase")  # outermost first, as InstanceNumbers count


@dataclass(frozen=True)
class Frame:
    """One two-dimensional image.

    Attributes
    ----------
    dataset : as `dicom_datasets` makes it, without its pixels
    volume : repetition, average, set, phase and channel: the same for images of one volume
    contrast : number of the echo, from 0
    output : name of the kind of image (`gadgets.outputs`)
    seconds : when it was measured, since an unknown moment; 0: not known
    placed : whether its position and orientation in the patient are known
    kind : data type of its pixels, uint16 of DICOM or complex64 values
    place : first byte of its pixels in the file of pixels
    """

    dataset: Dataset
    volume: tuple[int, ...]
    contrast: int
    output: str
    seconds: float
    placed: bool
    kind: str
    place: int

    @property
    def position(self) -> NDArray[np.float64]:
        """Patient position (LPS, mm) of the first pixel's centre."""
        return np.array(self.dataset.ImagePositionPatient, np.float64)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return int(self.dataset.Rows), int(self.dataset.Columns)


class Frames:
    """The frames of a scan as they come.

    Beyond `IN_MEMORY` their pixels are in a file without a name in the system's folder for temporary files, which goes
    with the process. What stays in memory is what a frame's attributes differ in from the frame before, some 10 kB.
    """

    def __init__(self) -> None:
        self._frames: list[Frame] = []
        self._pixels: IO[bytes] = tempfile.SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115
        self._end = 0

    def __len__(self) -> int:
        return len(self._frames)

    def add(
        self,
        image: ismrmrd.Image,
        datasets: Sequence[Dataset],
        placed: bool,
        values: NDArray[np.complex64] | None = None,
    ) -> None:
        """Keep the datasets that `dicom_datasets` made of an image.

        Parameters
        ----------
        image, datasets : the image and its datasets; of a complex one, those of its magnitude
        placed : whether its position and orientation are known: `ImageGeometry.assumed` is false
        values : (cha, z, y, x) of a complex image, kept instead of the pixels

        Raises
        ------
        OSError
            The disk is full.
        """
        partitions = image.data.shape[1]
        counters = tuple(int(getattr(image, name)) for name in VOLUME_COUNTERS)
        for number, full in enumerate(datasets):
            pixels = full.PixelData if values is None else values[divmod(number, partitions)].tobytes()
            self._pixels.seek(self._end)
            self._pixels.write(pixels)
            dataset = Dataset()
            dataset.update({element.tag: element for element in full if element.keyword not in PIXEL_KEYWORDS})
            if self._frames:
                _share_elements(dataset, self._frames[-1].dataset)
            self._frames.append(
                Frame(
                    dataset,
                    (*counters, number // partitions),
                    int(image.contrast),
                    output_of(image).name,
                    image.acquisition_time_stamp * TICK_S,
                    placed,
                    "<u2" if values is None else "<c8",
                    self._end,
                )
            )
            self._end += len(pixels)

    def pixels(self, frame: Frame) -> NDArray[Any]:
        """The stored pixels of a frame, uint16 (y, x); complex64 values of a complex image."""
        rows, columns = frame.shape
        kind = np.dtype(frame.kind)
        self._pixels.seek(frame.place)
        return np.frombuffer(self._pixels.read(kind.itemsize * rows * columns), kind).reshape(rows, columns)

    def series(self) -> Iterator[list[Frame]]:
        """The frames of one series after the other, by SeriesNumber; each in the order of InstanceNumbers."""
        found = defaultdict(list)
        for frame in self._frames:
            found[str(frame.dataset.SeriesInstanceUID)].append(frame)
        for frames in sorted(found.values(), key=lambda frames: int(frames[0].dataset.SeriesNumber)):
            yield sorted(frames, key=lambda frame: int(frame.dataset.InstanceNumber))

    def close(self) -> None:
        """Give the room on the disk back."""
        self._pixels.close()


def _share_elements(dataset: Dataset, other: Dataset) -> None:
    """Let a dataset hold another one's elements where they are equal, instead of copies."""
    for element in list(dataset):
        if element.tag in other and other[element.tag] == element:
            dataset[element.tag] = other[element.tag]


def common_value(frames: Iterable[Frame], keyword: str) -> Any:
    """The value of an attribute that all frames share; None where they differ or one has none."""
    values = [frame.dataset.get(keyword) for frame in frames]
    return values[0] if all(value == values[0] for value in values) else None

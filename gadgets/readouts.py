"""How much of k-space a readout covers, from the samples that come; what the header says of it is a claim.

The header's pixel size (encoded field of view / encoded matrix) is what holds where the numbers of samples differ: a
converter that knows nothing of the readout's oversampling leaves both at the base resolution, one that has removed it
leaves both as they were.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import ismrmrd
import numpy as np

from gadgets.acquisition_flags import is_calibration_only, is_for_images, is_noise
from gadgets.acquisitions import calibration_mode, encoding_of, with_data
from gadgets.stream import ReconError

log = logging.getLogger("genrecon")

Array = np.ndarray[Any, np.dtype[Any]]

SAME = 0.02  # relative difference of two pixel sizes that are the same
CLOSE = 0.9  # a smaller part of the encoded matrix is another oversampling
LINES_TO_LOOK_AT = 64  # readouts whose energy decides where the echo is
EVIDENCE = 4.0  # how many times more energy the echo must have at one place than at another


@dataclass(frozen=True)
class Grid:
    """Where the samples of a readout are in k-space.

    Attributes
    ----------
    size : samples of a whole readout; its sample size // 2 is the centre of k-space
    echo : index of the centre of k-space among the samples that came, discarded ones included
    note : what was taken where header and samples contradict each other; "" where they agree
    likely : whether it may be taken without further evidence
    """

    size: int
    echo: int
    note: str = ""
    likely: bool = True


def is_block_of_its_own(header: Any, acquisition: Any) -> bool:
    """Whether a line is separate or external calibration, whose readouts may differ from those of the images."""
    return is_calibration_only(acquisition) and calibration_mode(encoding_of(header, acquisition)) in {
        "separate",
        "external",
    }


def kept_samples(acquisition: ismrmrd.Acquisition) -> Array:
    """The samples (coil, sample) less those that its header discards."""
    stop = acquisition.number_of_samples - acquisition.discard_post
    return np.asarray(acquisition.data[:, acquisition.discard_pre : max(stop, acquisition.discard_pre)])


def readout_extent(encoding: Any, samples: int) -> float:
    """Field of view in mm of a whole readout of so many samples, with its oversampling or without it.

    Raises ReconError when header and samples contradict each other in a way that cannot be decided.
    """
    return _extent(encoding, samples)[0]


def samples_without_oversampling(encoding: Any) -> int:
    """How many samples of the encoded pixel size the reconstructed field of view holds."""
    encoded, recon = encoding.encodedSpace, encoding.reconSpace
    return max(round(recon.fieldOfView_mm.x * encoded.matrixSize.x / encoded.fieldOfView_mm.x), 1)


def _extent(encoding: Any, samples: int) -> tuple[float, str]:
    """Field of view of a whole readout, and what was taken to find it."""
    encoded, recon = encoding.encodedSpace, encoding.reconSpace
    matrix, fov = encoded.matrixSize.x, encoded.fieldOfView_mm.x
    pixel = fov / matrix
    if samples == matrix:
        return fov, ""
    if abs(samples * pixel - recon.fieldOfView_mm.x) <= pixel * (1 + 1e-6):
        return samples * pixel, _taken(samples, matrix, f"without oversampling, over {samples * pixel:.4g} mm")
    # The interpolation to the reconstructed pixels is the same along the readout and E1.
    wanted = encoded.fieldOfView_mm.y / encoded.matrixSize.y / (recon.fieldOfView_mm.y / recon.matrixSize.y)
    recon_pixel = recon.fieldOfView_mm.x / recon.matrixSize.x
    by_pixel, by_extent = same_size(pixel / recon_pixel, wanted), same_size(fov / samples / recon_pixel, wanted)
    multiple = samples > matrix and samples % matrix == 0
    if by_pixel or (multiple and not by_extent):
        # Fewer samples than the matrix are an oversampling that was removed, in whole steps; else the matrix is another
        # scan's, or both ends of the readouts were left out.
        factor = samples * pixel / recon.fieldOfView_mm.x
        if samples > matrix or (factor > 1 - SAME and same_size(factor, round(factor)) and samples <= CLOSE * matrix):
            return samples * pixel, _taken(samples, matrix, f"oversampled, over {samples * pixel:.4g} mm")
    elif by_extent and fov == recon.fieldOfView_mm.x:
        return fov, _taken(samples, matrix, f"the encoded matrix, over {fov:.4g} mm")
    raise ReconError(
        f"has {samples} samples, the header's encoded matrix is {matrix}; header and data disagree: give matrixSize x "
        "and fieldOfView_mm x of encodedSpace as the readouts were measured"
    )


def _taken(samples: int, matrix: int, text: str) -> str:
    return f"the readouts have {samples} samples, the header's encoded matrix {matrix}: they are taken as {text}"


def same_size(one: float, other: float) -> bool:
    """Whether two pixel sizes, or ratios of them, are the same but for rounding."""
    return abs(math.log(one / other)) < SAME


def possible_grids(encoding: Any, head: Any) -> list[Grid]:
    """Where the samples of a readout may be in k-space, the most likely place first.

    There is more than one where center_sample contradicts the number of samples, or an echo at half the encoded matrix
    may be counted from the first sample that came or from the first of a whole readout.

    Parameters
    ----------
    encoding : of the header
    head : of the acquisition

    Raises
    ------
    ReconError
        Header and samples contradict each other in a way that cannot be decided.
    """
    samples, before, after = head.number_of_samples, head.discard_pre, head.discard_post
    kept, matrix, centre = samples - before - after, encoding.encodedSpace.matrixSize.x, head.center_sample
    if kept < 1:
        raise ReconError(
            f"has {samples} samples, of which its header discards {before} and {after}; correct discard_pre and "
            "discard_post"
        )
    base = samples_without_oversampling(encoding)
    usual = {matrix, base, 2 * base} | {n for n in (samples, kept) if n % matrix == 0}
    valid = before < centre < samples - after
    echo = centre - before

    def grid(size: int, place: int, note: str = "") -> Grid:
        return Grid(size, place, _extent(encoding, size)[1] or note)

    def wrong(place: int) -> str:
        return f"center_sample {centre} of readouts of {samples} samples is wrong: {place} is taken"

    def whole(size: int, first: int) -> list[Grid]:
        """A complete readout: the echo is in its middle, or where center_sample says."""
        middle = first + size // 2
        if valid and abs(centre - middle) <= size // 8:
            return [grid(size, centre)]
        grids = [grid(size, middle, wrong(middle))]
        return [*grids, grid(size, centre)] if valid else grids

    if matrix in (samples, kept):
        return whole(matrix, before if kept == matrix else 0)
    if not valid:
        for size, first in ((kept, before), (samples, 0)):
            if size in usual:
                return whole(size, first)
        sides = {before + matrix // 2, samples - after - (matrix - matrix // 2)}
        possible = [place for place in sorted(sides) if before <= place < samples - after]
        if kept > matrix or not possible:
            raise ReconError(
                f"has {samples} samples and center_sample {centre}, the header's encoded matrix is {matrix}; correct "
                "center_sample or matrixSize x of encodedSpace"
            )
        return [Grid(matrix, place, wrong(place), likely=False) for place in possible]
    if kept in usual and abs(echo - kept // 2) <= 1:
        return [grid(kept, centre)]
    for size in (matrix, base, 2 * base, 2 * matrix):
        if _fits(size, echo, kept) or _fits(size, centre, samples):
            other = samples - after - (size - size // 2)  # as if center_sample counted the samples that were left out
            ambiguous = centre == size // 2 and before <= other < centre
            return [grid(size, centre)] + ([grid(size, other, wrong(other))] if ambiguous else [])
    if kept in usual:
        return whole(kept, before)
    return [grid(kept if echo == kept // 2 else 2 * max(echo, kept - echo), centre)]


def _fits(size: int, echo: int, count: int) -> bool:
    """Whether samples with their echo at index `echo` reach from within a whole readout to one of its ends."""
    left, right = size // 2 - echo, size - size // 2 - (count - echo)
    return left >= 0 and right >= 0 and min(left, right) <= (size // 32 if left != right else 0)


def is_whole(header: Any, acquisition: ismrmrd.Acquisition) -> bool:
    """Whether a readout has all its samples, the echo in the middle, though perhaps not as many as the header says."""
    if not is_for_images(acquisition) or acquisition.center_sample != acquisition.number_of_samples // 2:
        return False
    try:
        return possible_grids(encoding_of(header, acquisition), acquisition)[0].size == acquisition.number_of_samples
    except ReconError:
        return False


class WholeReadouts:
    """Makes readouts whole, ahead of a chain: what its header discards never enters, echoes are in the middle.

    Noise lines lose their discarded samples. Lines for images become whole readouts, the echo at size // 2, with zeros
    where nothing was measured, which discard_pre and discard_post count. Where center_sample is in doubt lines wait
    until their energy tells where the echo is. All others pass as they are. A real Gadgetron does none of this.

    Parameters
    ----------
    header : ismrmrd.xsd.ismrmrdHeader
    """

    def __init__(self, header: Any) -> None:
        self._header = header
        self._chosen: dict[tuple[int, ...], Grid] = {}
        self._possible: dict[tuple[int, ...], list[Grid]] = {}
        self._energy: dict[tuple[int, ...], Array] = {}
        self._sizes: dict[int, int] = {}
        self._notes: set[str] = set()

    def __call__(self, items: Iterable[Any]) -> Iterator[Any]:
        """The items in their order.

        Raises ReconError when the samples of a line contradict the header or the lines before it.
        """
        waiting: list[Any] = []
        for item in items:
            waiting.append(item)
            if (self._in_doubt(item) or len(waiting) > 1) and len(waiting) < LINES_TO_LOOK_AT:
                continue
            self._decide()
            yield from map(self._whole, waiting)
            waiting = []
        self._decide()
        yield from map(self._whole, waiting)

    def _concerns(self, item: Any) -> bool:
        return isinstance(item, ismrmrd.Acquisition) and is_for_images(item)

    def _key(self, item: ismrmrd.Acquisition) -> tuple[int, ...]:
        """What lines have in common whose samples are at the same places."""
        place = (item.number_of_samples, item.discard_pre, item.discard_post, item.center_sample)
        return (item.encoding_space_ref, int(is_block_of_its_own(self._header, item)), *place)

    def _in_doubt(self, item: Any) -> bool:
        """Whether the place of a line's samples is not known yet; takes the line into account."""
        if not self._concerns(item):
            return False
        key = self._key(item)
        if key in self._chosen:
            return False
        if key not in self._possible:
            self._possible[key] = self._grids(item)
        grids = self._possible[key]
        if len(grids) == 1 and grids[0].likely:
            self._choose(key, grids[0])
            return False
        energy = (np.abs(item.data) ** 2).sum(axis=0)
        energy[: item.discard_pre] = 0
        energy[item.number_of_samples - item.discard_post :] = 0
        self._energy[key] = self._energy.get(key, 0) + energy
        return True

    def _grids(self, item: ismrmrd.Acquisition) -> list[Grid]:
        encoding = encoding_of(self._header, item)
        try:
            grids = possible_grids(encoding, item)
        except ReconError as error:
            if not is_block_of_its_own(self._header, item):
                raise ReconError(f"acquisition {item.scan_counter} {error}") from None
            grids = []
        if is_block_of_its_own(self._header, item):  # of fewer samples perhaps, over the same field of view
            fitting = [grid for grid in grids if grid.size >= encoding.encodedSpace.matrixSize.x and grid.likely]
            return fitting[:1] or [Grid(item.number_of_samples, item.center_sample)]
        return grids

    def _decide(self) -> None:
        """Choose the places that are in doubt, by the energy of the lines that came."""
        for key, energy in self._energy.items():
            grids = self._possible[key]
            at_echo = [float(energy[max(grid.echo - 2, 0) : grid.echo + 3].sum()) for grid in grids]
            best = int(np.argmax(at_echo))
            rest = max((value for place, value in enumerate(at_echo) if place != best), default=0.0)
            if at_echo[best] <= EVIDENCE * rest:
                best = 0
                if not grids[0].likely:
                    raise ReconError(
                        f"center_sample {key[-1]} of readouts of {key[2]} samples is wrong, and their energy does not "
                        "tell where the echo is; correct center_sample"
                    )
            self._choose(key, grids[best])
        self._energy.clear()

    def _choose(self, key: tuple[int, ...], grid: Grid) -> None:
        space, own_block, samples = key[:3]
        if not own_block and self._sizes.setdefault(space, grid.size) != grid.size:
            raise ReconError(
                f"readouts of {samples} samples, {grid.size} when they are whole, came after others of "
                f"{self._sizes[space]} in encoding {space}; give them encodings of their own in the header"
            )
        self._chosen[key] = grid
        if grid.note and grid.note not in self._notes:
            self._notes.add(grid.note)
            log.warning("%s", grid.note)

    def _whole(self, item: Any) -> Any:
        if isinstance(item, ismrmrd.Acquisition) and is_noise(item):
            if not item.discard_pre and not item.discard_post:
                return item
            return with_data(item, kept_samples(item), discard_pre=0, discard_post=0)
        if not self._concerns(item):
            return item
        grid, samples = self._chosen[self._key(item)], item.number_of_samples
        first, stop = item.discard_pre, samples - item.discard_post
        if (first, stop, grid.size) == (0, samples, samples) and item.center_sample == grid.echo == samples // 2:
            return item
        shift = grid.size // 2 - grid.echo
        first, stop = max(first, -shift), min(stop, grid.size - shift)
        data = np.zeros((item.active_channels, grid.size), dtype=np.complex64)
        data[:, first + shift : stop + shift] = item.data[:, first:stop]
        return with_data(
            item,
            data,
            discard_pre=first + shift,
            discard_post=grid.size - stop - shift,
            center_sample=grid.size // 2,
        )

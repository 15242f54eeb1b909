"""How much of k-space the phase encodings cover, from the lines that come; what the header says of it is a claim.

As along the readout (`gadgets.readouts`) the header's pixel size holds where the number of lines differs: more lines
than the encoded matrix are phase oversampling, unless the header's matrices show that its encoded matrix is wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gadgets.readouts import SAME, same_size
from gadgets.stream import ReconError

MOST = 4  # times the header's matrix that lines may need
# Of the header's matrix: fewer lines outside it are faults of counters, or the rest of a last shot (mrpro#217: 200
# lines of a matrix of 188, no oversampling).
FEWEST_OUTSIDE = 0.08
SHIFT = 1 / 16  # of the matrix: what the phase of an object may move the peak of its k-space by
EVIDENCE = 4.0  # how many times more energy the centre of k-space must have at one line than at another


@dataclass(frozen=True)
class Axis:
    """One phase encoding direction.

    Attributes
    ----------
    size : lines of the encoded matrix
    centre : counter of the line at the centre of k-space, which is at size // 2 of the matrix
    extent : encoded field of view in mm
    recon_size, recon_extent : matrix and field of view in mm of the images
    notes : what was taken where header and lines contradict each other
    """

    size: int
    centre: int
    extent: float
    recon_size: int
    recon_extent: float
    notes: tuple[str, ...] = ()


def phase_axis(encoding: Any, energy: Mapping[int, float]) -> Axis:
    """Direction E1 of an encoding.

    Parameters
    ----------
    encoding : of the header
    energy : of the lines that came, by their kspace_encode_step_1

    Raises
    ------
    ReconError
        The lines do not fit the header in a way that cannot be decided.
    """
    return _axis(encoding, "y", energy)


def partition_axis(encoding: Any, energy: Mapping[tuple[int, int], float]) -> Axis:
    """Direction E2 of an encoding: of size 1 where all lines of each E1 have one kspace_encode_step_2, a 2D scan.

    Parameters
    ----------
    encoding : of the header
    energy : of the lines that came, by their kspace_encode_step_1 and kspace_encode_step_2

    Raises
    ------
    ReconError
        The lines do not fit the header in a way that cannot be decided.
    """
    encoded, recon = encoding.encodedSpace, encoding.reconSpace
    partitions = sorted({step_2 for _, step_2 in energy})
    thickness = recon.fieldOfView_mm.z / recon.matrixSize.z
    one_each = len(energy) == len({step_1 for step_1, _ in energy})
    if len(partitions) == 1 or (encoded.matrixSize.z == 1 and one_each):
        notes = []
        if encoded.matrixSize.z > 1:
            notes.append(
                f"the header has {encoded.matrixSize.z} partitions, all lines are of one: the scan is taken as 2D, "
                f"slices {thickness:.4g} mm thick"
            )
        elif len(partitions) > 1:
            notes.append("kspace_encode_step_2 has one value for each line: the scan is taken as 2D")
        return Axis(1, partitions[0], encoded.fieldOfView_mm.z, 1, thickness, tuple(notes))
    along: dict[int, float] = {}
    for (_, step_2), value in energy.items():
        along[step_2] = along.get(step_2, 0.0) + value
    return _axis(encoding, "z", along)


def _axis(encoding: Any, name: str, energy: Mapping[int, float]) -> Axis:
    encoded, recon = encoding.encodedSpace, encoding.reconSpace
    matrix, extent = getattr(encoded.matrixSize, name), getattr(encoded.fieldOfView_mm, name)
    recon_matrix, recon_extent = getattr(recon.matrixSize, name), getattr(recon.fieldOfView_mm, name)
    counter = f"kspace_encode_step_{1 if name == 'y' else 2}"
    limit = getattr(encoding.encodingLimits, f"kspace_encoding_step_{1 if name == 'y' else 2}")
    low, high = min(energy), max(energy)
    notes: list[str] = []
    announced = limit is not None and limit.minimum <= limit.center <= limit.maximum
    centre = limit.center if announced else matrix // 2

    def fits(size: int, at: int) -> bool:
        return low - at + size // 2 >= 0 and high - at + size // 2 < size

    size = matrix
    if name == "z" and matrix == 1:
        size, extent = _partitions(recon_matrix, recon_extent, extent, high - low + 1)
        centre = limit.center if announced and limit.maximum > 0 else size // 2
        notes.append(f"the header has one partition, the lines {high - low + 1}: the scan is taken as 3D of {size}")
    if not fits(size, centre) and high - low < size:
        found = _centre(limit if announced else None, size, low, high, energy)
        notes.append(f"{counter} {low}..{high} does not fit the header's limits: {found} is taken as its centre")
        centre = found
    elif fits(size, centre):
        found = _by_energy(centre, [at for at in energy if fits(size, at)], energy)
        near = max(2, round(SHIFT * size))  # the phase of an object moves the peak a little
        if not (announced and limit.center):
            centre = found
        elif abs(found - centre) > near and low + near < found < high - near:
            notes.append(f"{counter} {low}..{high}: the header's centre {centre} has little energy, {found} is taken")
            centre = found
    elif not fits(size, centre):
        outside = sum(not 0 <= step - centre + size // 2 < size for step in energy)
        needed = 2 * max(centre - low, high - centre + 1)
        if not (announced and limit.minimum <= low and high <= limit.maximum):
            needed, centre = high - low + 1, low + (high - low + 1) // 2
        elif needed == high - low + 2:  # an odd number of lines
            needed = high - low + 1
            centre = low + needed // 2
        size, extent, taken = _more_lines(encoding, name, counter, needed, outside)
        notes.append(taken)
    if name == "z" and recon_matrix == 1 and size > 1:
        recon_matrix, recon_extent = size, extent
        notes.append(f"the header's reconSpace has one partition: {size} of {extent / size:.4g} mm are taken")
    return Axis(size, centre, extent, recon_matrix, recon_extent, tuple(notes))


def _partitions(recon_matrix: int, recon_extent: float, extent: float, came: int) -> tuple[int, float]:
    """Partitions and their field of view where the header has one partition. Raises ReconError if that is not known."""
    thickness = recon_extent / recon_matrix
    if recon_matrix > 1:
        size = max(came, recon_matrix)
        return size, size * thickness
    if extent > recon_extent and abs(extent / came / thickness - 1) < SAME:
        return came, extent
    raise ReconError(
        f"header: encodedSpace and reconSpace have one partition, the lines have {came} (kspace_encode_step_2); give "
        "matrixSize z and fieldOfView_mm z of both as the volume was measured"
    )


def _centre(limit: Any, size: int, low: int, high: int, energy: Mapping[int, float]) -> int:
    """Counter of the centre of k-space, where that of the header cannot be right and no more lines came than fit."""
    candidates = [size // 2, low + size // 2]  # counters from 0, or from the first line
    if limit is not None:
        candidates.insert(0, limit.center + low - limit.minimum)
    fitting = [at for at in candidates if low - at + size // 2 >= 0 and high - at + size // 2 < size]
    possible = [at for at in energy if low - at + size // 2 >= 0 and high - at + size // 2 < size]
    return _by_energy(fitting[0], possible, energy)


def _by_energy(likely: int, possible: list[int], energy: Mapping[int, float]) -> int:
    """The likely counter of the centre of k-space, or that with the most energy if it has far more."""

    def near(at: int) -> float:
        return max(energy.get(at + step, 0.0) for step in (-1, 0, 1))

    best = max(possible, key=lambda at: energy[at], default=likely)
    return best if near(best) > EVIDENCE * near(likely) else likely


def _more_lines(encoding: Any, name: str, counter: str, needed: int, outside: int) -> tuple[int, float, str]:
    """Matrix and field of view of more lines than the encoded matrix has, and what was taken."""
    encoded, recon = encoding.encodedSpace, encoding.reconSpace
    matrix, extent = getattr(encoded.matrixSize, name), getattr(encoded.fieldOfView_mm, name)
    pixel = getattr(recon.fieldOfView_mm, name) / getattr(recon.matrixSize, name)
    # The interpolation to the reconstructed pixels is the same along the readout and the phase encodings.
    wanted = encoded.fieldOfView_mm.x / encoded.matrixSize.x / (recon.fieldOfView_mm.x / recon.matrixSize.x)
    if name == "z":
        wanted = 1.0
    by_pixel = same_size(extent / matrix / pixel, wanted)
    by_extent = same_size(extent / needed / pixel, wanted)
    if needed <= MOST * matrix and outside > max(1, FEWEST_OUTSIDE * matrix) and by_pixel != by_extent:
        text = f"{needed} lines are needed for {counter}, the header's encoded matrix has {matrix}: they are taken as "
        if by_extent:
            return needed, extent, text + f"the encoded matrix, over {extent:.4g} mm"
        whole = needed * extent / matrix
        return needed, whole, text + f"oversampled, over {whole:.4g} mm"
    raise ReconError(
        f"header: its encoded matrix has {matrix} lines along {counter}, but {outside} of those that came lie outside; "
        f"correct matrixSize {name}, fieldOfView_mm {name} and the encoding limits, or leave these lines out"
    )

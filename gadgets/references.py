"""Reference lines that come in another encoding space than the lines of the images."""

from __future__ import annotations

import logging

import numpy as np
from gadgetron.types import ReconData
from gadgetron.types.recon_data import ReconBit, ReconBuffer

from gadgets.buffers import Array, first_line
from priors.signal.espirit import calibration_region

log = logging.getLogger("genrecon")

SAME_EXTENT = 1e-3  # relative difference of two fields of view that counts as none


def with_references(item: ReconData) -> ReconData:
    """ReconData whose images have the reference lines of another encoding space, where they have none of their own.

    A scanner may measure the calibration as an encoding of its own, with its own matrix and field of view. The first
    space that has reference lines and no image gives them to the images of all spaces without; they are put on the grid
    of those in k-space. Buffers of other coil counts or dimensions are left alone.
    """
    alone = (bit for bit in item.bits if not bit.data.data.size and bit.ref is not None and bit.ref.data.size)
    if (donor := next(alone, None)) is None:
        return item
    bits = []
    for bit in item.bits:
        needs = bit.data.data.size and (bit.ref is None or not bit.ref.data.size)
        if needs and not _belong_together(bit.data.data, donor.ref.data):
            log.warning(
                "reference lines of another encoding have other coils or dimensions than the image; they stay unused"
            )
            needs = False
        bits.append(ReconBit(bit.data, on_grid_of(bit.data, donor.ref)) if needs else bit)
    return ReconData(bits)


def _belong_together(data: Array, ref: Array) -> bool:
    return data.shape[3] == ref.shape[3] and (data.shape[2] > 1) == (ref.shape[2] > 1)


def on_grid_of(data: ReconBuffer, ref: ReconBuffer) -> ReconBuffer:
    """Reference lines with the steps in k-space of some data.

    Parameters
    ----------
    data, ref : their `sampling` says their fields of view; the centre of k-space is at the centre of their axes

    Returns
    -------
    The buffer itself where both have the same fields of view. Otherwise the fully sampled centre of it, evaluated at
    steps of 1 / (field of view of the data): its image beyond that field of view is left out.
    """
    wanted, own = extents_of(data), extents_of(ref)
    axes = [
        axis
        for axis in range(3)
        if ref.data.shape[axis] > 1 and wanted[axis] > 0 < own[axis] and abs(wanted[axis] / own[axis] - 1) > SAME_EXTENT
    ]
    if not axes:
        return ref
    samples = centre_of(ref.data)
    for axis in axes:
        steps = _resampling(samples.shape[axis], wanted[axis] / own[axis])
        samples = np.moveaxis(np.tensordot(steps, samples, (1, axis)), 0, axis)
    headers = np.empty((*samples.shape[1:3], *samples.shape[4:]), dtype=object)
    headers.fill(first_line(ref))
    return ReconBuffer(np.asfortranarray(samples, dtype=np.complex64), None, None, headers, ref.sampling)


def extents_of(buffer: ReconBuffer) -> tuple[float, ...]:
    """What the steps of k-space encode along [RO, E1, E2], in mm; 0 where that is not known."""
    sampling = buffer.sampling
    oversampling = max(buffer.data.shape[0] / (sampling.encoded_matrix[0] or buffer.data.shape[0]), 1.0)
    return (sampling.encoded_FOV[0] * oversampling, sampling.encoded_FOV[1], sampling.encoded_FOV[2])


def centre_of(data: Array) -> Array:
    """The fully sampled centre of a buffer [RO, E1, E2, ...] along RO, E1 and E2."""
    measured = (data != 0).any(axis=tuple(range(3, data.ndim)))
    readout = measured.any((1, 2))
    columns = calibration_region(readout[:, None])[0]
    rows, partitions = calibration_region(measured.any(0))
    parts = (_centred(part, size) for part, size in zip((columns, rows, partitions), data.shape, strict=False))
    return data[tuple(parts)]


def _centred(part: slice, size: int) -> slice:
    """The part of a range around the centre of an axis, the centre at half its length."""
    half = min(size // 2 - part.start, part.stop - size // 2)
    return slice(size // 2 - half, min(part.stop, size // 2 + half + 1))


def _resampling(samples: int, ratio: float) -> Array:
    """Matrix (new sample, sample) from k-space of a field of view to that of `ratio` times it, over the same range."""
    count = max(round(samples * ratio), 1)
    place = np.arange(samples) - samples // 2  # in pixels of the image of the samples
    inside = place[np.abs(place) <= samples * ratio / 2]
    to_image = np.exp(2j * np.pi * np.outer(inside, place) / samples) / samples
    back = np.exp(-2j * np.pi * np.outer(np.arange(count) - count // 2, inside) / (samples * ratio))
    return back @ to_image

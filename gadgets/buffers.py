"""Between Gadgetron's axis order and the (coil, y, x) problems that the priors solve.

Gadgetron's buffers are complex64 arrays [RO, E1, E2, CHA, N, S, LOC]. A 2D slice is one problem with (y, x) =
(E1, RO). A 3D volume is transformed along the readout first (hybrid space); then each readout position is a problem
with (y, x) = (E1, E2).

Coil maps have the same axes with the map sets in place of N: [RO, E1, E2, CHA, SET, S, LOC], always in image space.
"""

from __future__ import annotations

import copy
from typing import Any

import ismrmrd
import numpy as np
import torch
from gadgetron.types.recon_data import ReconBuffer
from torch import Tensor

from gadgets.stream import ReconError
from gadgets.survey import Survey
from priors.signal.fourier import ifft2c

Array = np.ndarray[Any, np.dtype[Any]]

OF_REFERENCE = "of_reference"  # attribute of buffers whose lines are those of a reference scan


def is_3d(data: Array) -> bool:
    """Whether a buffer [RO, E1, E2, ...] is a 3D encoding."""
    return data.shape[2] > 1


def kspace_problems(data: Array) -> Tensor:
    """One buffer's k-space as a batch of 2D problems.

    Parameters
    ----------
    data : complex64 array [RO, E1, E2, CHA]

    Returns
    -------
    complex64 tensor (batch, coil, y, x): (1, CHA, E1, RO) in 2D, (RO, CHA, E1, E2) in hybrid space in 3D.

    Raises
    ------
    ReconError
        When a sample is NaN or infinite.
    """
    kspace = torch.from_numpy(np.ascontiguousarray(data.transpose(3, 0, 1, 2)))  # CHA, RO, E1, E2
    if not torch.isfinite(torch.view_as_real(kspace)).all():
        raise ReconError("k-space: it has NaN or infinite samples; check the raw data")
    if is_3d(data):
        return ifft2c(kspace, axes=(1,)).movedim(0, 1).contiguous()
    return kspace[..., 0].transpose(-1, -2).contiguous()[None]


def sampled(data: Array) -> Tensor:
    """Which samples of a buffer were measured: those that any coil has a value for (lines never filled are zero).

    Returns a bool tensor (batch, y, x) as `kspace_problems` orders it; in 3D the mask (E1, E2) is the same for all
    readout positions and has batch 1.
    """
    measured = torch.from_numpy(np.ascontiguousarray((data != 0).any(axis=3)))  # RO, E1, E2
    return measured.any(0)[None] if is_3d(data) else measured[..., 0].T.contiguous()[None]


def image_from_problems(images: Tensor, three_d: bool) -> Array:
    """Images (batch, y, x) as a complex64 array [RO, E1, E2]."""
    return images.numpy() if three_d else images[0].T[:, :, None].numpy()


def maps_from_problems(maps: Tensor, three_d: bool) -> Array:
    """Coil maps (batch, set, coil, y, x) as a complex64 array [RO, E1, E2, CHA, SET]."""
    if three_d:
        return maps.permute(0, 3, 4, 2, 1).numpy()
    return maps[0].permute(3, 2, 1, 0)[:, :, None].numpy()


def maps_of(all_maps: Array, s: int, location: int) -> Array:
    """The maps [RO, E1, E2, CHA, SET] of one S and LOC of a buffer; those of the last one where there are fewer."""
    return all_maps[..., min(s, all_maps.shape[5] - 1), min(location, all_maps.shape[6] - 1)]


def maps_problems(maps: Array) -> Tensor:
    """Coil maps [RO, E1, E2, CHA, SET] as a complex64 tensor (batch, set, coil, y, x)."""
    tensor = torch.from_numpy(np.ascontiguousarray(maps.astype(np.complex64, copy=False)))
    if is_3d(maps):
        return tensor.permute(0, 4, 3, 1, 2).contiguous()
    return tensor[:, :, 0].permute(3, 2, 1, 0).contiguous()[None]


def replace_data(buffer: ReconBuffer, data: Array) -> ReconBuffer:
    """The buffer with other data [RO, E1, E2, CHA, N, S, LOC]; the headers' channel counts follow."""
    channels = data.shape[3]
    headers = np.empty(buffer.headers.shape, dtype=object)
    for index, header in np.ndenumerate(buffer.headers):
        changed = copy.copy(header)
        if changed.number_of_samples:
            changed.active_channels = channels
        headers[index] = changed
    changed_buffer = ReconBuffer(data, buffer.trajectory, buffer.density, headers, buffer.sampling)
    if is_of_reference(buffer):
        mark_of_reference(changed_buffer)
    return changed_buffer


def mark_of_reference(buffer: ReconBuffer) -> None:
    """Mark a buffer: its lines are those of a reference scan (`gadgets.reference_lines`)."""
    setattr(buffer, OF_REFERENCE, True)


def is_of_reference(buffer: ReconBuffer | None) -> bool:
    """Whether the lines of a buffer are those of a reference scan."""
    return hasattr(buffer, OF_REFERENCE)


def first_line(buffer: ReconBuffer) -> ismrmrd.AcquisitionHeader:
    """Header of the first measured line of a buffer."""
    return next((head for head in buffer.headers.flat if head.number_of_samples), buffer.headers.flat[0])


LATEST_SLICES = 4  # what is known of them is kept though the header announces each slice once: it may be wrong


def keep(known: dict[Any, Any], key: Any, value: Any, all_of_them: bool) -> None:
    """Keep what is known of a slice for its other images: of all slices, or of the latest."""
    known[key] = value
    while not all_of_them and len(known) > LATEST_SLICES:
        del known[next(iter(known))]


def slices_come_again(header: Any, survey: Survey | None = None) -> bool:
    """Whether a slice may come in more than one buffer: repetitions, phases, sets, or a header that does not say.

    Parameters
    ----------
    header : ismrmrd.xsd.ismrmrdHeader
    survey : of the lines, where they are known beforehand
    """
    if survey is not None:
        return survey.images(averaged=True) > sum(len(survey.values("slice", space)) for space in survey.spaces())
    if len(header.encoding) > 1:
        return True
    limits = header.encoding[0].encodingLimits
    several = [limit is not None and limit.maximum > 0 for limit in (limits.phase, limits.set, limits.contrast)]
    return limits.repetition is None or limits.repetition.maximum > 0 or any(several)


def filled(data: Array, ref: Array) -> Array:
    """K-space with the samples that only the calibration buffer has.

    Parameters
    ----------
    data, ref : complex64 [RO, E1, E2, CHA, N, S, LOC]; a ref of another shape is left alone

    Returns
    -------
    complex64 array like `data`
    """
    if ref.shape != data.shape:
        return data
    return np.where((data != 0).any(axis=3, keepdims=True), data, ref)


def averaged(data: Array, headers: Array) -> tuple[Array, Array, int, Array | None]:
    """Average a buffer over the axis (N or S) along which the average counter changes; the measured samples only.

    Parameters
    ----------
    data : complex64 [RO, E1, E2, CHA, N, S, LOC]
    headers : object array [E1, E2, N, S, LOC]

    Returns
    -------
    Data and headers, that axis of length 1, how many averages were merged, and how many each sample [RO, E1, E2, 1, N,
    S, LOC] has; unchanged, 1 and None without such an axis.
    """
    for axis in (2, 3):
        if headers.shape[axis] == 1:
            continue
        counters = [
            {int(head.idx.average) for head in headers.take(index, axis).flat if head.number_of_samples}
            for index in range(headers.shape[axis])
        ]
        found = [averages for averages in counters if averages]
        if all(len(averages) == 1 for averages in found) and len(set().union(*found)) == len(found) > 1:
            count = (data != 0).any(axis=3, keepdims=True).sum(axis=axis + 2, keepdims=True)
            mean = data.sum(axis=axis + 2, keepdims=True) / np.maximum(count, 1)
            return mean.astype(np.complex64), headers.take([0], axis), len(found), count
    return data, headers, 1, None

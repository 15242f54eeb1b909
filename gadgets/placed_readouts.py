"""Buffers with readouts that do not belong there, or not as they are: taken out, turned round, corrected, or refused.

Our gadgets look at the headers of every buffer. In process `gadgets.image_lines` has done most of it before; a real
Gadgetron places navigators like lines, and lines read backwards as they came.
"""

from __future__ import annotations

import copy
import itertools
import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import ismrmrd
import numpy as np
from gadgetron.types import ReconData
from gadgetron.types.recon_data import ReconBit, ReconBuffer

from gadgets.acquisition_flags import LEFT_OUT, REVERSED, counts_text, kind_left_out
from gadgets.acquisitions import encoding_of
from gadgets.buffer_oversampling import without_oversampling
from gadgets.buffers import filled, first_line
from gadgets.image_lines import TURNED, refuse_epi
from gadgets.polarity import PolarityPhase, between, fitted, line_energy, within_image
from gadgets.stream import ReconError
from gadgets.twins.fourier import centred_fft

log = logging.getLogger("genrecon")

Array = np.ndarray[Any, np.dtype[Any]]

MOST_TAKEN_OUT = 0.1  # of an image's lines; with more, too many lines may be lost under other readouts
SHORTEST_TR_MS = 1.8  # between excitations of one slice; echoes of EPI are 0.4 to 1.2 ms apart
TICK_MS = 2.5  # of acquisition_time_stamp, by custom of the converters
MOST_LINES = 1024  # of an image that tell its phase: those with the most energy
FEWEST_OF_A_TRAIN = 8  # lines
_TURNED = REVERSED | 1 << TURNED - 1

Place = tuple[int, int]  # N, S


def checked_readouts(items: Iterable[Any], header: Any) -> Iterator[Any]:
    """Yield all items; buffers hold lines of images only, all of one polarity and without its phase.

    - Readouts that are no line of an image are taken out and told; of more than a tenth of an image's lines it is
      refused, since lines may be lost under them.
    - Lines that are still reversed (a real Gadgetron does not turn them) are turned round, and the readout's edge pixel
      is that of the other edge.
    - The linear and constant phase of lines read backwards is estimated, from those of the same image
      (`gadgets.polarity.within_image`); of images read backwards as a whole, from the averages read forwards, or from
      the contrasts before and after, between whose phases theirs is. With a contrast on one side only, the linear phase
      is taken from it and the constant stays: it cannot be told from off-resonance.
    - Readouts with an oversampling that the header does not tell of are cut (`gadgets.buffer_oversampling`).
    - Without any of these a buffer passes as it is.

    Raises
    ------
    ReconError
        Too many other readouts, or lines of an echo-planar image.
    """
    for item in items:
        if isinstance(item, ReconData):
            bits = [without_oversampling(bit, _encoding(bit, header, space)) for space, bit in enumerate(item.bits)]
            item.bits = [_checked(bit, header, space) for space, bit in enumerate(bits)]
        yield item


def _encoding(bit: ReconBit, header: Any, space: int) -> Any:
    """The encoding of a bit by its lines, or by its place where it has none."""
    for buffer in (bit.data, bit.ref):
        if buffer is not None and buffer.headers.size and (line := first_line(buffer)).number_of_samples:
            return encoding_of(header, line)
    return header.encoding[space]


def _checked(bit: ReconBit, header: Any, space: int) -> ReconBit:
    buffers = [bit.data, bit.ref] if bit.ref is not None else [bit.data]
    marks = 0
    for buffer in buffers:
        for head in buffer.headers.flat:
            marks |= head.flags
    if not marks & (LEFT_OUT | REVERSED):
        return bit
    buffers = [_writable(buffer) for buffer in buffers]
    for buffer in buffers:
        _take_out(buffer)
    if not any(_backward(buffer).any() for buffer in buffers):
        return ReconBit(*buffers, *[None] * (2 - len(buffers)))
    encoding = header.encoding[space]
    for buffer in buffers:
        backward = _backward(buffer)
        if backward.any():
            head = next(head for head in buffer.headers[backward].flat)
            refuse_epi(encoding, head.scan_counter)
            _refuse_one_shot(buffer, encoding)
            _turn(buffer, encoding)
    for location in range(buffers[0].headers.shape[4]):
        phases = _phases(buffers, location)
        for buffer in buffers:
            _remove(buffer, phases if buffer is buffers[0] else _of_calibration(buffer, phases, location), location)
    for buffer in buffers:
        for head in buffer.headers.flat:
            head.flags &= ~(_TURNED if head.flags & REVERSED else 0)
    return ReconBit(*buffers, *[None] * (2 - len(buffers)))


def _writable(buffer: ReconBuffer) -> ReconBuffer:
    headers = np.empty(buffer.headers.shape, dtype=object)
    for index, head in np.ndenumerate(buffer.headers):
        headers[index] = copy.copy(head)
    return ReconBuffer(np.array(buffer.data, order="F"), buffer.trajectory, buffer.density, headers, buffer.sampling)


def _flags(buffer: ReconBuffer) -> Array:
    """Flags of the measured lines [E1, E2, N, S, LOC], int64 (none defined here has bit 63 but ACQ_USER8)."""
    flags = [int(head.flags) & (1 << 63) - 1 if head.number_of_samples else 0 for head in buffer.headers.flat]
    return np.array(flags, dtype=np.int64).reshape(buffer.headers.shape)


def _measured(buffer: ReconBuffer) -> Array:
    """Which lines were measured, bool [E1, E2, N, S, LOC]."""
    measured = [head.number_of_samples > 0 for head in buffer.headers.flat]
    return np.array(measured, dtype=bool).reshape(buffer.headers.shape)


def _backward(buffer: ReconBuffer) -> Array:
    """Which lines were read backwards, bool [E1, E2, N, S, LOC]."""
    return (_flags(buffer) & REVERSED) > 0


def _take_out(buffer: ReconBuffer) -> None:
    kinds: Counter[str] = Counter()
    measured = int(_measured(buffer).sum())
    for place, head in np.ndenumerate(buffer.headers):
        kind = kind_left_out(head) if head.number_of_samples else ""
        if kind:
            kinds[kind] += 1
            e1, e2, n, s, location = place
            buffer.data[:, e1, e2, :, n, s, location] = 0
            buffer.headers[place] = ismrmrd.AcquisitionHeader()
    if not kinds:
        return
    text = f"{counts_text(kinds)} had been placed among {measured} lines of an image"
    advice = "put gadgets.image_lines (target ImageLines) first in the chain"
    if kinds.total() > MOST_TAKEN_OUT * measured:
        raise ReconError(f"{text}, where they may have replaced lines; {advice}")
    log.warning("%s and are taken out; %s, for they may have replaced lines", text, advice)


def _turn(buffer: ReconBuffer, encoding: Any) -> None:
    """Turn round the lines that are still as they were read.

    The buffer's centre is that of k-space, so k becomes -k. Of an even number of samples that is one sample apart from
    the opposite order of samples (see `gadgets.image_lines`), as they were before the oversampling was removed.
    """
    flags = _flags(buffer)
    backward = ((flags & REVERSED) > 0) & ((flags & _TURNED) != _TURNED)
    if not backward.any():
        return
    samples = buffer.data.shape[0]
    mirrored = (2 * (samples // 2) - np.arange(samples)) % samples
    oversampling = encoding.encodedSpace.fieldOfView_mm.x / encoding.reconSpace.fieldOfView_mm.x
    apart = PolarityPhase(1 / oversampling if encoding.encodedSpace.matrixSize.x % 2 == 0 else 0.0, 0.0)
    for e1, own in enumerate(backward):
        lines = np.moveaxis(buffer.data[:, e1], 2, -1)  # readout, E2, N, S, LOC, coil
        hybrid = centred_fft(lines[:, own], (0,), inverse=True)
        lines[:, own] = apart.removed(centred_fft(hybrid[mirrored], (0,)), 0)


def _refuse_one_shot(buffer: ReconBuffer, encoding: Any) -> None:
    """Raise ReconError for an image that one echo train covers with alternating polarity: EPI by another name.

    Its lines alternate in the order in which they were measured, and are closer together than excitations can be, or
    the header's echo train has as many.
    """
    for n, s, location in np.ndindex(buffer.headers.shape[2:]):
        heads = [head for head in buffer.headers[:, :, n, s, location].flat if head.number_of_samples]
        heads.sort(key=lambda head: (head.acquisition_time_stamp, head.scan_counter))
        backward = [bool(head.flags & REVERSED) for head in heads]
        alternate = all(own != following for own, following in itertools.pairwise(backward))
        if not alternate or len(heads) < FEWEST_OF_A_TRAIN:
            continue
        stamps = [head.acquisition_time_stamp for head in heads]
        quick = all(stamps) and 0 < TICK_MS * (stamps[-1] - stamps[0]) < SHORTEST_TR_MS * (len(heads) - 1)
        if quick or (encoding.echoTrainLength or 0) >= len(heads):
            raise ReconError(
                f"acquisition {heads[0].scan_counter}: one echo train of alternating polarity covers the image (EPI), "
                "whose lines need regridding and ghost correction first; only Cartesian scans can be reconstructed"
            )


def _phases(buffers: list[ReconBuffer], location: int) -> dict[Place, PolarityPhase]:
    """The phase of the lines read backwards of each image of a LOC, by N and S; calibration lines help to find it."""
    data = buffers[0]
    kspace, measured, backward = data.data, _measured(data), _backward(data)
    if len(buffers) == 2 and buffers[1].data.shape == kspace.shape:
        kspace = filled(kspace, buffers[1].data)
        backward = np.where(measured, backward, _backward(buffers[1]))
        measured = measured | _measured(buffers[1])
    return _within_images(kspace, measured, backward, location) | _phases_of_whole_images(
        data, kspace, measured, backward, location
    )


def _within_images(kspace: Array, measured: Array, backward: Array, location: int) -> dict[Place, PolarityPhase]:
    """The phase of each image of a LOC that has lines of both polarities."""
    found: dict[Place, PolarityPhase] = {}
    for n, s in np.ndindex(measured.shape[2:4]):
        lines, own = measured[..., n, s, location], backward[..., n, s, location]
        if own.any() and (lines & ~own).any():
            phase = within_image(kspace[..., n, s, location], lines, own)
            if phase is None:
                log.warning(
                    "lines read backwards and forwards are in one image, whose data do not tell the phase between "
                    "them; it may have ghosts"
                )
            else:
                found[n, s] = phase
    return found


def _phases_of_whole_images(
    buffer: ReconBuffer, kspace: Array, measured: Array, backward: Array, location: int
) -> dict[Place, PolarityPhase]:
    """The phase of images read backwards as a whole, against those read forwards in the same buffer."""
    counters, whole = {}, []
    for n, s in np.ndindex(measured.shape[2:4]):
        heads = [head for head in buffer.headers[:, :, n, s, location].flat if head.number_of_samples]
        if heads:
            index = heads[0].idx
            counters[n, s] = (int(index.contrast), (int(index.phase), int(index.set)))
            if backward[..., n, s, location][measured[..., n, s, location]].all():
                whole.append((n, s))
    forward = [place for place in counters if place not in whole]

    def product(place: Place, other: Place) -> Array:
        first, second = (kspace[..., n, s, location] for n, s in (other, place))
        energy = np.minimum(line_energy(first), line_energy(second))
        strongest = np.argsort(-energy, axis=None, kind="stable")[:MOST_LINES]
        e1, e2 = np.unravel_index(strongest[energy.flat[strongest] > 0], energy.shape)
        return between(first[:, e1, e2], second[:, e1, e2])

    found: dict[Place, PolarityPhase] = {}
    clean: Array | None = None  # products with twice the phase, in which that of the contrasts' echo times is cancelled
    one_sided: dict[Place, Array] = {}
    for place in whole:
        contrast, motion = counters[place]
        same = {counters[other][0]: other for other in forward if counters[other][1] == motion}
        if contrast in same:
            found[place] = fitted(product(place, same[contrast]))
        elif contrast - 1 in same and contrast + 1 in same:
            twice = product(place, same[contrast - 1]) * product(place, same[contrast + 1])
            clean = twice if clean is None else clean + twice
            one_sided[place] = twice
        elif same:
            nearest = min(same, key=lambda other: abs(other - contrast))
            one_sided[place] = product(place, same[nearest])
    if clean is not None:
        double = fitted(clean)
        found |= dict.fromkeys(one_sided, PolarityPhase(double.shift / 2, double.constant / 2))
    else:
        found |= {place: PolarityPhase(fitted(one).shift, 0.0) for place, one in one_sided.items()}
    return found


def _of_calibration(
    buffer: ReconBuffer, phases: dict[Place, PolarityPhase], location: int
) -> dict[Place, PolarityPhase]:
    """The phases of a calibration buffer's lines: those of the images; where these have none, from its own lines."""
    if location >= buffer.headers.shape[4]:
        return {}
    return _within_images(buffer.data, _measured(buffer), _backward(buffer), location) | phases


def _remove(buffer: ReconBuffer, phases: dict[Place, PolarityPhase], location: int) -> None:
    """Take phases from the lines read backwards of a LOC."""
    backward = _backward(buffer)
    for (n, s), phase in phases.items():
        if n < backward.shape[2] and s < backward.shape[3] and location < backward.shape[4]:
            for e1, own in enumerate(backward[:, :, n, s, location]):
                lines = buffer.data[:, e1, :, :, n, s, location]
                lines[:, own] = phase.removed(lines[:, own], 0)

"""Lines of images on their way into a chain: other readouts are left out, lines read backwards turned round."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import ismrmrd
import numpy as np

from gadgets.acquisition_flags import (
    FLAGS,
    Use,
    is_noise,
    is_phase_correction,
    is_reversed,
    kind_left_out,
    left_out_text,
    undefined_flags,
)
from gadgets.acquisitions import IMAGE_COUNTERS, encoding_of, with_data
from gadgets.polarity import PolarityPhase, between, fitted
from gadgets.stream import Gadget, ReconError, parameter

log = logging.getLogger("genrecon")

TURNED = ismrmrd.ACQ_USER7  # with ACQ_IS_REVERSE: turned round, the phase of the polarity is still in the samples
LAST_IN_SLICE = 1 << ismrmrd.ACQ_LAST_IN_SLICE - 1
LAST_FLAGS = sum(1 << flag.number - 1 for name, flag in FLAGS.items() if name.startswith("ACQ_LAST_IN_"))
PHASE_CORRECTION = next(flag.kind for flag in FLAGS.values() if flag.use is Use.PHASE_CORRECTION)


class ImageLines(Gadget):
    """Leaves out readouts that are no line of an image, and turns round those that were read backwards.

    It stands at the head of every chain that runs in process, before anything is transformed. A real Gadgetron runs it
    as an `<external>` (`gadgets.image_lines`, target `ImageLines`) that is the first of the stream; without it our
    gadgets repair what they can in the buffers (`gadgets.placed_readouts`).

    - What is left out (`gadgets.acquisition_flags`) is counted and told once. Flags of a loop's end at such a readout
      go to the line before it.
    - A line read backwards gets its samples in the opposite order, `center_sample` mirrored, `discard_pre` and
      `discard_post` exchanged. Phase correction readouts of both polarities that came before it give the linear and the
      constant phase that is taken from it; of several groups the last one of its slice and contrast counts, else of
      its slice, else of its encoding. Without them it is flagged ACQ_IS_REVERSE and ACQ_USER7, and the phase is
      estimated from the images.
    - Lines read forwards, and scans without such readouts, pass as they are.
    """

    @dataclass(frozen=True)
    class Parameters:
        turn_round: bool = parameter(True, "turn round lines that were read backwards")

    def process(self, items: Iterator[Any]) -> Iterator[Any]:
        left_out: Counter[str] = Counter()
        undefined: Counter[int] = Counter()
        references = _References()
        centres: dict[int, int] = {}  # of lines read forwards, by number of samples
        held: ismrmrd.Acquisition | None = None  # the last line, as long as a readout after it may have flags for it
        for item in items:
            is_readout = isinstance(item, ismrmrd.Acquisition)
            flags = int(item.flags) if is_readout else 0
            if kind := kind_left_out(flags):
                left_out[kind] += 1
                if is_phase_correction(item):
                    references.add(item)
                if held is not None:
                    held = _with_last_flags(held, item)
                continue
            if held is not None:
                yield held
                held = None
            if not is_readout or is_noise(flags):
                yield item
                continue
            undefined.update(undefined_flags(flags))
            if is_reversed(flags):
                item = self._turned(item, references, centres) if self.parameters.turn_round else item
            else:
                centres.setdefault(item.number_of_samples, item.center_sample)
            if flags & LAST_IN_SLICE:
                yield item
            else:
                held = item
        if held is not None:
            yield held
        if references.used:
            del left_out[PHASE_CORRECTION]
        if left_out:
            log.warning("%s: %s", self.name, left_out_text(left_out))
        for number, count in undefined.items():
            log.warning(
                "%s: %d lines have flag %d, which the ISMRMRD standard does not define; it is ignored",
                self.name,
                count,
                number,
            )

    def _turned(
        self, line: ismrmrd.Acquisition, references: _References, centres: dict[int, int]
    ) -> ismrmrd.Acquisition:
        refuse_epi(encoding_of(self.header, line), line.scan_counter)
        samples = line.number_of_samples
        phase = references.phase(line)
        data = line.data[:, ::-1] if phase is None else phase.removed(_without_discarded(line)[:, ::-1])
        turned = with_data(
            line,
            data,
            center_sample=_mirrored_centre(line, centres.get(samples)),
            discard_pre=line.discard_post,
            discard_post=line.discard_pre,
        )
        if line.traj.size:
            turned.traj[:] = line.traj[::-1]
        if phase is None:
            turned.set_flag(TURNED)
        else:
            turned.clear_flag(ismrmrd.ACQ_IS_REVERSE)
            turned.clear_flag(TURNED)
        return turned


def refuse_epi(encoding: Any, scan_counter: int) -> None:
    """Raise ReconError for lines read backwards in an encoding that is echo-planar."""
    trajectory = str(getattr(encoding.trajectory, "value", encoding.trajectory) or "").lower()
    described = encoding.trajectoryDescription.identifier if encoding.trajectoryDescription else ""
    if trajectory == "epi" or "epi" in described.lower():
        raise ReconError(
            f"acquisition {scan_counter}: it was read backwards in an EPI echo train, whose lines need regridding and "
            "ghost correction first; only Cartesian scans can be reconstructed"
        )


def _without_discarded(readout: ismrmrd.Acquisition) -> Any:
    """Samples (coil, sample), those to be discarded 0: they enter no transform."""
    data = readout.data.copy()
    data[:, : readout.discard_pre] = 0
    data[:, readout.number_of_samples - readout.discard_post :] = 0
    return data


def _mirrored_centre(line: ismrmrd.Acquisition, forward: int | None) -> int:
    """Centre sample of a line that was turned round.

    Sample j becomes n - 1 - j, and so does the centre. Writers that mirror n // 2, or any centre, to n - centre mean
    the same place: it is taken where lines read forwards have it, and for an echo in the middle (there it is between
    two samples, whichever way it is read). What is left of a sample is in the linear phase.
    """
    samples, centre = int(line.number_of_samples), int(line.center_sample)
    if centre == 0 or centre >= samples:
        return centre  # not given
    if forward in {samples - 1 - centre, samples - centre}:
        return forward
    return centre if 2 * centre == samples else samples - 1 - centre


def _with_last_flags(line: ismrmrd.Acquisition, other: ismrmrd.Acquisition) -> ismrmrd.Acquisition:
    """The line with the flags of loops' ends that a readout of the same image after it has."""
    if not other.flags & LAST_FLAGS & ~line.flags or any(
        getattr(line.idx, name) != getattr(other.idx, name) for name in IMAGE_COUNTERS
    ):
        return line
    line = with_data(line, line.data)
    line.flags |= other.flags & LAST_FLAGS
    return line


_Kind: TypeAlias = tuple[bool, int, int]  # read backwards, coils, samples
_Sum: TypeAlias = tuple[Any, int]  # of readouts (coil, sample), and their number


class _References:
    """Phase correction readouts, in groups of one slice and contrast, of which only sums are kept."""

    def __init__(self) -> None:
        self.used = False
        self._groups: dict[tuple[int, int, int], dict[_Kind, _Sum]] = {}
        self._closed: set[tuple[int, int, int]] = set()  # groups that lines have used: the next readout begins anew
        self._phases: dict[tuple[tuple[int, ...], int], PolarityPhase | None] = {}

    def add(self, readout: ismrmrd.Acquisition) -> None:
        """Take a readout into its group."""
        if not np.isfinite(readout.data.view(np.float32)).all():
            return
        key = _group(readout)
        if key in self._closed:
            self._closed.discard(key)
            self._groups[key] = {}
        backward, data = is_reversed(readout), _without_discarded(readout)
        group, kind = self._groups.setdefault(key, {}), (backward, *data.shape)
        total, count = group.get(kind, (0, 0))
        group[kind] = (total + (data[:, ::-1] if backward else data), count + 1)
        self._groups[key] = self._groups.pop(key)  # the last one that came is at the end
        self._phases.clear()

    def phase(self, line: ismrmrd.Acquisition) -> PolarityPhase | None:
        """Phase of a line read backwards; None without readouts of both polarities for it."""
        own, samples = _group(line), line.number_of_samples
        if (own, samples) not in self._phases:
            self._phases[own, samples] = self._estimated(own, samples)
        found = self._phases[own, samples]
        self.used = self.used or found is not None
        return found

    def _estimated(self, own: tuple[int, int, int], samples: int) -> PolarityPhase | None:
        for length in (3, 2, 1):
            keys = [key for key in self._groups if key[:length] == own[:length]]
            for chosen in [keys[-1:], keys] if length < 3 else [keys]:
                kinds = {kind for key in chosen for kind in self._groups[key] if kind[2] == samples}
                if len(kinds) == 2 and len({coils for _, coils, _ in kinds}) == 1:
                    self._closed.update(chosen)
                    forward, backward = (self._mean(chosen, kind) for kind in sorted(kinds))
                    return fitted(between(forward.T, backward.T))
        return None

    def _mean(self, keys: list[tuple[int, int, int]], kind: _Kind) -> Any:
        """Mean of the readouts of a kind, (coil, sample), in some groups."""
        sums = [self._groups[key][kind] for key in keys if kind in self._groups[key]]
        return sum(total for total, _ in sums) / sum(count for _, count in sums)


def _group(readout: ismrmrd.Acquisition) -> tuple[int, int, int]:
    return readout.encoding_space_ref, readout.idx.slice, readout.idx.contrast

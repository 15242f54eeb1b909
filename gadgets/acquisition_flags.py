"""What each flag of the ISMRMRD standard makes of a readout, and what a readout is used for.

`FLAGS` decides on every flag. A readout may carry several; the first of these that fits says what it is used for:

1. noise: ACQ_IS_NOISE_MEASUREMENT, whatever else is set;
2. left out: any flag of a readout that encodes no line of an image (navigator, stabilization, feedback, dummy, surface
   coil), also on a calibration line;
3. phase correction: ACQ_IS_PHASECORR_DATA, also on a calibration line (a reference scan brings its own): a readout
   without phase encoding, no line of the image or of the calibration;
4. calibration only: ACQ_IS_PARALLEL_CALIBRATION without ACQ_IS_PARALLEL_CALIBRATION_AND_IMAGING. Siemens marks lines
   that serve both with both flags;
5. an imaging line.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

import ismrmrd

BITS = 64
COMPRESSED = (
    "is compressed (a flag ACQ_COMPRESSION) and cannot be read here; write or send the raw data without compression"
)


class Use(Enum):
    """What a flag makes of a readout."""

    NONE = "nothing: the readout is used as its other flags say"
    NOISE = "noise covariance"
    CALIBRATION = "calibration"
    IMAGE_AND_CALIBRATION = "image and calibration"
    REVERSED = "turned round"
    PHASE_CORRECTION = "phase between readouts of opposite polarity"
    LEFT_OUT = "left out"
    REFUSED = "refused"


@dataclass(frozen=True)
class Flag:
    """One flag of the standard: its number, what it makes of a readout, why, and what to call such readouts."""

    number: int
    use: Use
    reason: str
    kind: str = ""


_PLACE = "a place in a loop, a hint for when something is complete"
_VENDOR = "free for vendors and gadgets; the standard gives it no meaning"

FLAGS: dict[str, Flag] = {
    "ACQ_FIRST_IN_ENCODE_STEP1": Flag(1, Use.NONE, _PLACE),
    "ACQ_LAST_IN_ENCODE_STEP1": Flag(2, Use.NONE, _PLACE),
    "ACQ_FIRST_IN_ENCODE_STEP2": Flag(3, Use.NONE, _PLACE),
    "ACQ_LAST_IN_ENCODE_STEP2": Flag(4, Use.NONE, _PLACE),
    "ACQ_FIRST_IN_AVERAGE": Flag(5, Use.NONE, _PLACE),
    "ACQ_LAST_IN_AVERAGE": Flag(6, Use.NONE, _PLACE),
    "ACQ_FIRST_IN_SLICE": Flag(7, Use.NONE, _PLACE),
    "ACQ_LAST_IN_SLICE": Flag(8, Use.NONE, _PLACE),
    "ACQ_FIRST_IN_CONTRAST": Flag(9, Use.NONE, _PLACE),
    "ACQ_LAST_IN_CONTRAST": Flag(10, Use.NONE, _PLACE),
    "ACQ_FIRST_IN_PHASE": Flag(11, Use.NONE, _PLACE),
    "ACQ_LAST_IN_PHASE": Flag(12, Use.NONE, _PLACE),
    "ACQ_FIRST_IN_REPETITION": Flag(13, Use.NONE, _PLACE),
    "ACQ_LAST_IN_REPETITION": Flag(14, Use.NONE, _PLACE),
    "ACQ_FIRST_IN_SET": Flag(15, Use.NONE, _PLACE),
    "ACQ_LAST_IN_SET": Flag(16, Use.NONE, _PLACE),
    "ACQ_FIRST_IN_SEGMENT": Flag(17, Use.NONE, _PLACE),
    "ACQ_LAST_IN_SEGMENT": Flag(18, Use.NONE, _PLACE),
    "ACQ_IS_NOISE_MEASUREMENT": Flag(19, Use.NOISE, "measured without a pulse: it holds no signal", "noise"),
    "ACQ_IS_PARALLEL_CALIBRATION": Flag(
        20, Use.CALIBRATION, "a line of the calibration region, perhaps of another contrast", "calibration"
    ),
    "ACQ_IS_PARALLEL_CALIBRATION_AND_IMAGING": Flag(
        21, Use.IMAGE_AND_CALIBRATION, "a line of the image and of its calibration region", "calibration and imaging"
    ),
    "ACQ_IS_REVERSE": Flag(22, Use.REVERSED, "a line whose samples came in the opposite order", "reversed"),
    "ACQ_IS_NAVIGATION_DATA": Flag(
        23, Use.LEFT_OUT, "measures motion, with an encoding of its own; its counters place it nowhere", "navigator"
    ),
    "ACQ_IS_PHASECORR_DATA": Flag(
        24, Use.PHASE_CORRECTION, "the echo without phase encoding, for lines of both polarities", "phase correction"
    ),
    "ACQ_LAST_IN_MEASUREMENT": Flag(25, Use.NONE, _PLACE),
    "ACQ_IS_HPFEEDBACK_DATA": Flag(
        26, Use.LEFT_OUT, "for feedback to the running sequence (high priority), not for images", "feedback"
    ),
    "ACQ_IS_DUMMYSCAN_DATA": Flag(27, Use.LEFT_OUT, "before the steady state: of another contrast", "dummy"),
    "ACQ_IS_RTFEEDBACK_DATA": Flag(
        28, Use.LEFT_OUT, "for feedback to the running sequence (real time), not for images", "feedback"
    ),
    "ACQ_IS_SURFACECOILCORRECTIONSCAN_DATA": Flag(
        29, Use.LEFT_OUT, "a scan of its own for coil profiles, with other coils and resolution", "surface coil"
    ),
    "ACQ_IS_PHASE_STABILIZATION_REFERENCE": Flag(
        30, Use.LEFT_OUT, "what stabilization readouts are compared with; without phase encoding", "phase stabilization"
    ),
    "ACQ_IS_PHASE_STABILIZATION": Flag(
        31,
        Use.LEFT_OUT,
        "a second readout after a line that it shares the counters with, without phase encoding",
        "phase stabilization",
    ),
    "ACQ_COMPRESSION1": Flag(53, Use.REFUSED, "samples compressed by ZFP, by Gadgetron's client: no reader here"),
    "ACQ_COMPRESSION2": Flag(
        54, Use.REFUSED, "samples compressed by NHLBI's method, by Gadgetron's client: no reader here"
    ),
    "ACQ_COMPRESSION3": Flag(55, Use.REFUSED, "samples compressed by a method that the standard does not name"),
    "ACQ_COMPRESSION4": Flag(56, Use.REFUSED, "samples compressed by a method that the standard does not name"),
    "ACQ_USER1": Flag(57, Use.NONE, _VENDOR),
    "ACQ_USER2": Flag(58, Use.NONE, _VENDOR),
    "ACQ_USER3": Flag(59, Use.NONE, _VENDOR),
    "ACQ_USER4": Flag(60, Use.NONE, _VENDOR),
    "ACQ_USER5": Flag(61, Use.NONE, _VENDOR),
    "ACQ_USER6": Flag(62, Use.NONE, _VENDOR),
    "ACQ_USER7": Flag(63, Use.NONE, _VENDOR + "; here with ACQ_IS_REVERSE: the samples were turned round"),
    "ACQ_USER8": Flag(64, Use.NONE, _VENDOR + "; here: the line was prewhitened"),
}

Readout: TypeAlias = ismrmrd.Acquisition | ismrmrd.AcquisitionHeader | int  # an acquisition, its header, or its flags


def mask_of(*uses: Use) -> int:
    """The bits of all flags of some uses."""
    return sum(1 << flag.number - 1 for flag in FLAGS.values() if flag.use in uses)


NOISE = mask_of(Use.NOISE)
LEFT_OUT = mask_of(Use.LEFT_OUT, Use.PHASE_CORRECTION)  # no line of an image
REVERSED = mask_of(Use.REVERSED)
SURFACE_COIL = 1 << FLAGS["ACQ_IS_SURFACECOILCORRECTIONSCAN_DATA"].number - 1
UNDEFINED = (1 << BITS) - 1 - sum(1 << flag.number - 1 for flag in FLAGS.values())  # bits without a flag
_CALIBRATION, _BOTH = mask_of(Use.CALIBRATION), mask_of(Use.IMAGE_AND_CALIBRATION)
_REFUSED, _PHASE_CORRECTION = mask_of(Use.REFUSED), mask_of(Use.PHASE_CORRECTION)
_OTHERS = mask_of(Use.LEFT_OUT)
_KINDS = [(1 << flag.number - 1, flag.kind) for flag in FLAGS.values() if flag.use is Use.LEFT_OUT]


def _flags(readout: Readout) -> int:
    return readout if isinstance(readout, int) else int(readout.flags)


def mistaken_flags(kinds: Iterable[int]) -> int:
    """Bits that do not mean what they say in a scan whose readouts have these flags; 0: none.

    Siemens' converter marks lines whose raw data are to be corrected as surface coil readouts, and so all lines of the
    image. Where no imaging line is left without them, they are that.
    """
    kinds = set(kinds)
    if any(_is_imaging_line(flags) for flags in kinds):
        return 0
    return SURFACE_COIL if any(_is_imaging_line(flags & ~SURFACE_COIL) for flags in kinds) else 0


def _is_imaging_line(flags: int) -> bool:
    return is_for_images(flags) and not is_calibration_only(flags)


def is_noise(readout: Readout) -> bool:
    """Whether a readout measured noise."""
    return bool(_flags(readout) & NOISE)


def is_for_images(readout: Readout) -> bool:
    """Whether a readout is an imaging or calibration line."""
    return not _flags(readout) & (NOISE | LEFT_OUT)


def is_calibration(readout: Readout) -> bool:
    """Whether a line is a calibration line, for imaging too or not."""
    return bool(_flags(readout) & (_CALIBRATION | _BOTH))


def is_calibration_only(readout: Readout) -> bool:
    """Whether a line is a calibration line that is not for imaging, too."""
    return _flags(readout) & (_CALIBRATION | _BOTH) == _CALIBRATION


def is_phase_correction(readout: Readout) -> bool:
    """Whether a readout measured the phase between polarities."""
    return _flags(readout) & (NOISE | LEFT_OUT) == _PHASE_CORRECTION


def is_reversed(readout: Readout) -> bool:
    """Whether the samples of a readout came in the opposite order."""
    return bool(_flags(readout) & REVERSED)


def is_compressed(readout: Readout) -> bool:
    """Whether the samples of a readout are compressed: they cannot be read here."""
    return bool(_flags(readout) & _REFUSED)


def kind_left_out(readout: Readout) -> str:
    """The kind of a readout that is no line of an image; "" for lines and for noise."""
    flags = _flags(readout)
    if flags & NOISE or not flags & LEFT_OUT:
        return ""
    if not flags & _OTHERS:
        return "phase correction"
    return next(kind for bit, kind in _KINDS if flags & bit)


def counts_text(kinds: Counter[str]) -> str:
    """Text such as "32 navigator, 64 phase stabilization readouts"."""
    counts = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    return f"{counts} readout{'s' * (kinds.total() != 1)}"


def left_out_text(kinds: Counter[str]) -> str:
    """Text such as "1 navigator readout is left out"."""
    return f"{counts_text(kinds)} {'is' if kinds.total() == 1 else 'are'} left out"


def kinds() -> dict[str, int]:
    """The bits of the flags of each kind of readouts, by its name."""
    bits: dict[str, int] = {}
    for flag in FLAGS.values():
        if flag.kind:
            bits[flag.kind] = bits.get(flag.kind, 0) | 1 << flag.number - 1
    return bits


def undefined_flags(readout: Readout) -> list[int]:
    """Numbers of the flags that are set and that the standard does not define."""
    found = _flags(readout) & UNDEFINED
    return [number for number in range(1, BITS + 1) if found & 1 << number - 1] if found else []

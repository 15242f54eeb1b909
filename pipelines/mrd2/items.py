"""What becomes of the items of a stream that are no lines."""

from __future__ import annotations

from collections.abc import Mapping

from gadgets.errors import ReconError

# Without a word: they say nothing of the image. Of others a warning tells that they are not used.
_SAY_NOTHING = {
    "waveformuint32",
    "acquisitionprototype",
    "pulseqdefinitions",
    "pulseqblocks",
    "pulseqrfevent",
    "pulseqarbitrarygradient",
    "pulseqtrapezoidalgradient",
    "pulseqadcevent",
    "pulseqshape",
}
_BUCKETS = {"acquisitionbucket": "buckets of lines", "recondata": "buffers of lines"}


def unused(passed: Mapping[str, int]) -> str:
    """A list of the items that are not used and that somebody may miss; "" without."""
    return ", ".join(f"{count} {name}" for name, count in sorted(passed.items()) if name not in _SAY_NOTHING)


def refuse_buckets(passed: Mapping[str, int]) -> None:
    """Raise ReconError for items that hold lines in another form: an image without them would be a wrong one."""
    for name, text in _BUCKETS.items():
        if passed.get(name):
            raise ReconError(f"the stream has {text}; send the lines themselves, as they were measured")

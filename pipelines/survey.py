"""What a header announces of loops and phase encodings, compared with what came."""

from __future__ import annotations

from typing import Any

from gadgets.acquisitions import IMAGE_COUNTERS, signed_step
from gadgets.survey import Survey

LIMITS = {  # by counter, the names of the header's limits
    "kspace_encode_step_1": "kspace_encoding_step_1",
    "kspace_encode_step_2": "kspace_encoding_step_2",
    **{name: name for name in (*IMAGE_COUNTERS, "segment")},
}


def announced_and_found(survey: Survey, header: Any) -> list[tuple[str, str]]:
    """For each encoding space with imaging lines a name, and the counters found, compared with the header's limits.

    Counters that are 0 in all lines and by the header are left out.
    """
    rows = []
    for space in survey.spaces():
        limits = header.encoding[space].encodingLimits
        texts = []
        for counter, name in LIMITS.items():
            values, limit = survey.values(counter, space), getattr(limits, name)
            if counter.startswith("kspace"):
                values = sorted(map(signed_step, values))
            if not values or (values == [0] and (limit is None or limit.minimum == limit.maximum == 0)):
                continue
            announced = f"{limit.minimum}..{limit.maximum}" if limit else "nothing"
            texts.append(f"{counter} {_span(values)} (header {announced})")
        if texts:
            rows.append((f"counters {space}", ", ".join(texts)))
    return rows


def _span(values: list[int]) -> str:
    if len(values) == 1:
        return str(values[0])
    span = f"{values[0]}..{values[-1]}"
    return span if values[-1] - values[0] + 1 == len(values) else f"{len(values)} of {span}"

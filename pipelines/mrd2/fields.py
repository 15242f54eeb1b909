"""What the fields of lines and images are in every version of MRD 2; a stream's schema is compared with it."""

from __future__ import annotations

from collections.abc import Collection

from gadgets.acquisitions import IMAGE_COUNTERS
from pipelines.mrd2.source import Damaged
from pipelines.mrd2.types import Array, Enumeration, Option, Packed, Primitive, Record, Text, Type, Unsigned, Vector

COUNTER_FORMS = {
    "kspaceEncodeStep1": "unsigned?",
    "kspaceEncodeStep2": "unsigned?",
    **dict.fromkeys((*IMAGE_COUNTERS, "segment"), "unsigned?"),
    "user": "unsigned*",
}
_OF_BOTH = {
    "flags": "flags",
    "measurementUid": "unsigned",
    "acquisitionTimeStamp": "unsigned?",
    "acquisitionTimeStampNs": "unsigned?",
    "physiologyTimeStamp": "unsigned*",
    "physiologyTimeStampNs": "unsigned*",
    "position": "float32[3]",
    "sliceDir": "float32[3]",
    "patientTablePosition": "float32[3]",
    "userInt": "signed*",
    "userFloat": "float32*",
}
LINE_FORMS = _OF_BOTH | {
    "head": "record",
    "idx": "record",
    "scanCounter": "unsigned?",
    "acquisitionCenterFrequency": "unsigned?",
    "channelOrder": "unsigned*",
    "discardPre": "unsigned?",
    "discardPost": "unsigned?",
    "centerSample": "unsigned?",
    "encodingSpaceRef": "unsigned?",
    "sampleTimeUs": "float32?",
    "sampleTimeNs": "unsigned?",
    "readDir": "float32[3]",
    "phaseDir": "float32[3]",
    "data": "complex64[,]",
    "trajectory": "float32[,]",
    "phase": "float32[]?",
}
IMAGE_FORMS = _OF_BOTH | {
    "head": "record",
    "fieldOfView": "float32[3]",
    "colDir": "float32[3]",
    "lineDir": "float32[3]",
    **dict.fromkeys(IMAGE_COUNTERS, "unsigned?"),
    "imageType": "term",
    "imageIndex": "unsigned?",
    "imageSeriesIndex": "unsigned?",
}
_VERSIONS = (  # of each of these a record has one
    {"acquisitionTimeStamp", "acquisitionTimeStampNs"},
    {"physiologyTimeStamp", "physiologyTimeStampNs"},
    {"sampleTimeUs", "sampleTimeNs"},
)
_NOT_IN_ALL = {"head", "acquisitionCenterFrequency", "phase"}


def form_of(element: Type) -> str:
    """A type in short: that of its values, with ? where they may be missing, * for a list, brackets for an array."""
    if isinstance(element, Option):
        return form_of(element.element) + "?"
    if isinstance(element, Vector):
        return form_of(element.element) + ("*" if element.length is None else f"*{element.length}")
    if isinstance(element, Array):
        if element.shape is not None:
            return f"{form_of(element.element)}[{','.join(map(str, element.shape))}]"
        return form_of(element.element) + f"[{',' * ((element.dimensions or 1) - 1)}]"
    if isinstance(element, Enumeration):
        return "flags" if element.flags else "term"
    if isinstance(element, Record):
        return "record"
    if isinstance(element, Primitive):
        if isinstance(element, Packed):
            return str(element.dtype)
        return "text" if isinstance(element, Text) else "unsigned" if isinstance(element, Unsigned) else "signed"
    return "other"


def check_fields(record: Record, forms: dict[str, str], what: str) -> list[str]:
    """Compare a record, and the head within it, with what is known of their fields; returns fields that are not known.

    Raises Damaged when a field is missing, or is something else than it is in MRD 2.
    """
    head = record.types.get("head")
    found = [*record.fields, *(head.fields if isinstance(head, Record) else ())]
    for name, element in found:
        if name in forms and form_of(element) != forms[name]:
            raise otherwise(what, name)
    names = {name for name, _ in found}
    for name in forms:
        others: Collection[str] = next((version for version in _VERSIONS if name in version), {name})
        if name not in _NOT_IN_ALL and not names & set(others):
            raise otherwise(what, name)
    return sorted(name for name in names if name not in forms)


def otherwise(what: str, name: str) -> Damaged:
    """The error for a field that a schema describes as no version of MRD 2 does."""
    return Damaged(
        f"its schema describes {name} of {what} in another way than MRD 2.0 to 2.2 do; write it in one of these"
    )

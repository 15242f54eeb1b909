"""Images of ISMRMRD as items of an MRD 2 stream."""

from __future__ import annotations

from typing import Any

import ismrmrd
import numpy as np

from gadgets.acquisitions import IMAGE_COUNTERS
from gadgets.errors import ReconError
from gadgets.images import meta_of, meta_values
from pipelines.mrd2.acquisitions import STAMP_NS, fields_of
from pipelines.mrd2.fields import IMAGE_FORMS, check_fields, otherwise
from pipelines.mrd2.schema import Schema
from pipelines.mrd2.types import Array, Enumeration, Map, Record, Text, Union, Vector

TYPES = {  # MRD 2's names of ISMRMRD's image types
    ismrmrd.IMTYPE_MAGNITUDE: "magnitude",
    ismrmrd.IMTYPE_PHASE: "phase",
    ismrmrd.IMTYPE_REAL: "real",
    ismrmrd.IMTYPE_IMAG: "imag",
    ismrmrd.IMTYPE_COMPLEX: "complex",
}


def mrd2_image(image: ismrmrd.Image, schema: Schema) -> tuple[str, dict[str, Any]]:
    """Tag and fields of an image; meta attributes are texts, as ISMRMRD has them.

    Raises ReconError for an image of a type that MRD 2 does not have.
    """
    tag, record = _case(image.data.dtype, schema)
    head = image.getHead()
    kind = head.image_type or (ismrmrd.IMTYPE_COMPLEX if np.iscomplexobj(image.data) else ismrmrd.IMTYPE_MAGNITUDE)
    if kind not in TYPES:
        raise ReconError(f"an image of type {kind}: MRD 2 has no such type; leave out the gadget that makes it")
    names = record.types.get("head", record)
    term = names.types["imageType"] if isinstance(names, Record) else None
    if not isinstance(term, Enumeration) or TYPES[kind] not in term.names.values():
        raise otherwise("images", "imageType")
    values = {
        "flags": head.flags,
        "measurementUid": head.measurement_uid,
        "fieldOfView": _vector(head.field_of_view),
        "position": _vector(head.position),
        "colDir": _vector(head.read_dir),
        "lineDir": _vector(head.phase_dir),
        "sliceDir": _vector(head.slice_dir),
        "patientTablePosition": _vector(head.patient_table_position),
        **{name: getattr(head, name) for name in IMAGE_COUNTERS},
        "acquisitionTimeStamp": head.acquisition_time_stamp,
        "acquisitionTimeStampNs": head.acquisition_time_stamp * STAMP_NS,
        "physiologyTimeStamp": list(head.physiology_time_stamp),
        "physiologyTimeStampNs": [stamp * STAMP_NS for stamp in head.physiology_time_stamp],
        "imageType": TYPES[kind],
        "imageIndex": head.image_index,
        "imageSeriesIndex": head.image_series_index,
        "userInt": list(head.user_int),
        "userFloat": list(head.user_float),
        "data": image.data,
        "meta": _meta(image.attribute_string, record),
    }
    return tag, fields_of(values, record)


def _case(dtype: Any, schema: Schema) -> tuple[str, Record]:
    """The kind of item that images of a data type are; kinds are told apart by their data."""
    for tag, element in schema.item.cases:
        data = element.types.get("data") if isinstance(element, Record) and "meta" in element.types else None
        if isinstance(data, Array) and data.dimensions == 4 and data.dtype == dtype:
            assert isinstance(element, Record)
            check_fields(element, IMAGE_FORMS, "images")
            return tag, element
    raise ReconError(f"images of {dtype}: this version of MRD 2 has none; leave out the gadget that makes them")


def _vector(values: Any) -> Any:
    return np.array(values, np.float32)


def _meta(text: str | bytes | None, record: Record) -> dict[str, list[Any]]:
    """Meta attributes; in MRD 2.0 they are texts, later a union of texts and numbers."""
    meta = meta_of(text)
    kind = record.types["meta"]
    element = kind.value.element if isinstance(kind, Map) and isinstance(kind.value, Vector) else None
    cases = element.cases if isinstance(element, Union) else (("", element),)
    tag = next((tag for tag, case in cases if isinstance(case, Text)), None)
    if tag is None or not (isinstance(kind, Map) and isinstance(kind.key, Text)):
        raise otherwise("images", "meta")
    return {name: [(tag, one) if tag else one for one in meta_values(meta, name)] for name in meta}

"""The text of an ISMRMRD header, read."""

from __future__ import annotations

import dataclasses
import logging
import typing
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import defusedxml.ElementTree
import ismrmrd

from gadgets.stream import ReconError, one_line

# The header reader prints values that it cannot convert, among them birth dates of patients, which belong in no log.
warnings.filterwarnings("ignore", "Failed to convert value")
logging.getLogger("xsdata").setLevel(logging.CRITICAL)


def parse_header(path: Path | str, text: bytes) -> Any:
    """The ISMRMRD header of a text. Raises ReconError, which begins with `path`, for one that cannot be read."""
    try:
        defusedxml.ElementTree.fromstring(text)  # refuses entities, whichever parser ismrmrd takes
        header = ismrmrd.xsd.CreateFromDocument(text)
    except Exception as error:
        raise ReconError(
            f"{path}: its ISMRMRD header cannot be read ({one_line(error)}); convert the raw data again"
        ) from None
    for name in _no_numbers(header):
        raise ReconError(f"{path}: {name} in its ISMRMRD header is not a number; correct the header")
    return header


def _no_numbers(part: Any) -> Iterator[str]:
    """Names of fields of a header that are numbers by the schema, and were left as the texts that they are."""
    hints = typing.get_type_hints(type(part))
    for field in dataclasses.fields(part):
        value = getattr(part, field.name)
        kinds = set(typing.get_args(hints[field.name])) | {hints[field.name]}
        for one in value if isinstance(value, list) else [value]:
            if dataclasses.is_dataclass(one):
                yield from _no_numbers(one)
            elif isinstance(one, str) and kinds & {int, float} and str not in kinds:
                yield field.name

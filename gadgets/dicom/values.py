"""Texts, numbers, dates and times as DICOM values."""

from __future__ import annotations

import datetime
import logging
import math
import re
import unicodedata
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydicom.valuerep import DSfloat


log = logging.getLogger("genrecon")

Warn = Callable[[str], None]

TEXT_LIMITS = {"CS": 16, "SH": 16, "LO": 64, "PN": 64, "ST": 1024, "LT": 10240}


def cut(text: str, size: int) -> str:
    """The text in at most `size` bytes of UTF-8: DICOM counts characters, but not all of its readers do."""
    return text.encode(errors="replace")[:size].decode(errors="ignore").rstrip()


def text_value(value: Any, vr: str, warn: Warn) -> str:
    """Header text as a DICOM value of one value representation: clean, and cut when too long."""
    if value is None:
        return ""
    text = str(value).encode("utf-8", "replace").decode()
    if vr in ("ST", "LT"):
        text = "".join(c for c in text if c in "\r\n" or unicodedata.category(c) != "Cc").strip()
    else:
        text = "".join(" " if unicodedata.category(c) in ("Cc", "Zl", "Zp") else c for c in text)
        text = " ".join(text.replace("\\", "/").split())
    if vr == "CS":
        text = re.sub(r"[^A-Z0-9 _]", "_", text.upper())
    if vr == "PN":
        groups = ["^".join(group.split("^")[:5]) for group in text.split("=")[:3]]
        shortened = "=".join(cut(group, TEXT_LIMITS[vr]) for group in groups)
    else:
        shortened = cut(text, TEXT_LIMITS[vr])
    if len(shortened) < len(text):
        warn(f"a text of the header is too long for DICOM's {vr} ({TEXT_LIMITS[vr]} bytes); it is cut")
    return shortened


def finite(value: Any) -> float | None:
    """The value as a finite float, or None."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def positive(value: Any) -> float | None:
    """The value as a finite float above 0, or None."""
    number = finite(value)
    return number if number is not None and number > 0 else None


def decimal(value: float) -> DSfloat:
    """A float as a decimal string: ten digits, fewer where they are more than 16 characters, and no negative zero."""
    from pydicom.valuerep import DSfloat  # slow to load

    texts = (f"{float(value) + 0.0:.{digits}g}" for digits in (10, 9, 8))
    return DSfloat(next(text for text in texts if len(text) <= 16))


def of_contrast(values: list[float], contrast: int) -> float | None:
    """The entry of a sequence parameter list that belongs to a contrast; a list of one holds for all."""
    if contrast < len(values):
        return positive(values[contrast])
    return positive(values[0]) if len(values) == 1 else None


def quiet(_: str) -> None:
    """Takes warnings that another place gives."""


def date_of(value: Any, name: str = "", warn: Warn = quiet) -> datetime.date | None:
    """A date of the header as Python's, or None, with a warning that has the element's name.

    The reader of headers leaves a date that is not of the schema's form as a text: YYYYMMDD and what begins with
    YYYY-MM-DD are taken all the same.
    """
    if value is None or not str(value).strip():
        return None
    parts = [getattr(value, part, None) for part in ("year", "month", "day")]
    if isinstance(value, str) and (match := re.match(r"\s*(\d{4})(-?)(\d\d)\2(\d\d)(?!\d)", value)):
        parts = [int(match[group]) for group in (1, 3, 4)]
    try:
        return datetime.date(*parts)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        warn(f"the header's {name} is not a date; it is left out")
        return None


def time_of(value: Any, name: str = "", warn: Warn = quiet) -> datetime.time | None:
    """A time of the header as Python's, or None, with a warning that has the element's name; texts as in `date_of`."""
    if value is None or not str(value).strip():
        return None
    parts = [getattr(value, part, None) for part in ("hour", "minute", "second")]
    fraction = f"{getattr(value, 'fractional_second', 0) or 0:09d}"
    if isinstance(value, str) and (match := re.match(r"\s*(\d\d)(:?)(\d\d)\2(\d\d)(?:\.(\d+))?(?!\d)", value)):
        parts, fraction = [int(match[group]) for group in (1, 3, 4)], match[5] or ""
    try:
        return datetime.time(*[*parts, int(fraction[:6].ljust(6, "0"))])  # type: ignore[arg-type]
    except (TypeError, ValueError):
        warn(f"the header's {name} is not a time; it is left out")
        return None


def date_text(value: datetime.date | None) -> str:
    """A date as DICOM's DA, empty for None."""
    return "" if value is None else value.isoformat().replace("-", "")


def time_text(value: datetime.time | None) -> str:
    """A time as DICOM's TM, empty for None."""
    if value is None:
        return ""
    return value.strftime("%H%M%S.%f" if value.microsecond else "%H%M%S")

"""Texts, numbers, dates and times as DICOM values."""

from __future__ import annotations

import datetime
import logging
import math
import re
import unicodedata
from collections.abc import Callable
from typing import Any

from pydicom.valuerep import DSfloat

log = logging.getLogger("genrecon")

Warn = Callable[[str], None]

TEXT_LIMITS = {"CS": 16, "SH": 16, "LO": 64, "PN": 64, "ST": 1024, "LT": 10240}


def cut(text: str, size: int) -> str:
    """The text in at most `size` bytes of UTF-8: DICOM counts characters, but not all of its readers do."""
    return text.encode()[:size].decode(errors="ignore").rstrip()


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
    """A float as a decimal string: ten digits, which is at most 16 characters, and no negative zero."""
    return DSfloat(f"{float(value) + 0.0:.10g}")


def of_contrast(values: list[float], contrast: int) -> float | None:
    """The entry of a sequence parameter list that belongs to a contrast; a list of one holds for all."""
    if contrast < len(values):
        return positive(values[contrast])
    return positive(values[0]) if len(values) == 1 else None


def date_of(value: Any) -> datetime.date | None:
    """A date of the header (xsdata's type) as Python's, or None."""
    try:
        return datetime.date(value.year, value.month, value.day)
    except (AttributeError, TypeError, ValueError):
        return None


def time_of(value: Any) -> datetime.time | None:
    """A time of the header (xsdata's type) as Python's, or None."""
    try:
        return datetime.time(value.hour, value.minute, value.second, value.fractional_second // 1000)
    except (AttributeError, TypeError, ValueError):
        return None


def date_text(value: datetime.date | None) -> str:
    """A date as DICOM's DA, empty for None."""
    return "" if value is None else value.strftime("%Y%m%d").zfill(8)


def time_text(value: datetime.time | None) -> str:
    """A time as DICOM's TM, empty for None."""
    if value is None:
        return ""
    return value.strftime("%H%M%S.%f" if value.microsecond else "%H%M%S")

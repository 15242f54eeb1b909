"""Docstrings of the API pages: formulas of reStructuredText become those of Markdown."""

from __future__ import annotations

import re
from typing import Any

import griffe

INLINE = re.compile(r":math:`([^`]+)`")
BLOCK = re.compile(r"^(?P<indent> *)\.\. math:: *(?P<formula>.*(?:\n(?P=indent) +\S.*)*)", re.MULTILINE)


def to_markdown(text: str) -> str:
    r"""``:math:`` and ``.. math::`` of a docstring as ``\(...\)`` and ``\[...\]``, each formula on one line."""
    text = BLOCK.sub(lambda found: f"{found['indent']}\\[{' '.join(found['formula'].split())}\\]", text)
    return INLINE.sub(lambda found: f"\\({' '.join(found[1].split())}\\)", text)


class Formulas(griffe.Extension):
    """Rewrites each docstring before its sections are parsed."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """See griffe."""
        if obj.docstring is not None:
            obj.docstring.value = to_markdown(obj.docstring.value)

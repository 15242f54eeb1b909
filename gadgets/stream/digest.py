"""A digest of gadgets and their settings, by which two reconstructions of one scan differ."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import ismrmrd
from gadgetron.types import ImageArray

CHAIN_DIGEST = "GenreconChain"  # meta attribute of images: digest of the settings of the gadgets that made them

Settings = Sequence[tuple[str, Mapping[str, Any]]]  # gadget class and what is set in it, in the order of the chain


def settings_digest(settings: Settings) -> str:
    """Digest of gadgets and their settings, 32 hexadecimal digits; the order of properties does not matter."""
    text = json.dumps([[gadget, dict(values)] for gadget, values in settings], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def with_digest(item: Any, digest: str) -> Any:
    """The item; each image of an image array gets the digest as a meta attribute."""
    if isinstance(item, ImageArray):
        for index, text in enumerate(item.meta):
            meta = ismrmrd.Meta.deserialize(text) if text else ismrmrd.Meta()
            meta[CHAIN_DIGEST] = digest
            item.meta[index] = str(meta.serialize())
    return item

"""What tells a scan from another one with an equal header: a digest of its raw data."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable, Iterator
from typing import Any

import ismrmrd

from gadgets.acquisition_flags import is_calibration_only, is_for_images
from gadgets.images import meta_of
from gadgets.stream.digest import SCAN_DIGEST


class ScanDigest:
    """Digest of a scan's first line: taken from the lines before any gadget changes them, and given to its images.

    The line is the first imaging line that holds a sample other than 0; its samples, time stamp and place count. Every
    replay and every server gets it from the same line, whatever chain follows and in whatever order the images are
    finished. Noise and calibration lines do not count: those of another measurement may be in several scans.
    """

    def __init__(self) -> None:
        self.text = ""  # 32 hexadecimal digits, empty before that line

    def watch(self, items: Iterable[Any]) -> Iterator[Any]:
        """Yield all items; the digest is known when that line has passed."""
        for item in items:
            if not self.text and isinstance(item, ismrmrd.Acquisition):
                self.text = line_digest(item)
            yield item

    def mark(self, items: Iterator[Any]) -> Iterator[Any]:
        """Yield all items, images with the digest as meta attribute SCAN_DIGEST.

        Images of empty lines may come before it is known: they are held until then, or until the items end.
        """
        held: list[Any] = []
        with contextlib.closing(items) if hasattr(items, "close") else contextlib.nullcontext():  # type: ignore[type-var]
            for item in items:
                held.append(item)
                if self.text or not any(isinstance(one, ismrmrd.Image) for one in held):
                    yield from map(self._marked, held)
                    held.clear()
            yield from map(self._marked, held)

    def _marked(self, item: Any) -> Any:
        if isinstance(item, ismrmrd.Image) and self.text not in (item.attribute_string or ""):
            meta = meta_of(item.attribute_string)
            meta[SCAN_DIGEST] = self.text
            item.attribute_string = str(meta.serialize())
        return item


def line_digest(line: ismrmrd.Acquisition) -> str:
    """Digest of an imaging line, 32 hexadecimal digits; empty for one that is empty or not for images."""
    if not is_for_images(line) or is_calibration_only(line) or not line.data.any():
        return ""
    head = line.getHead()
    place = (head.measurement_uid, head.acquisition_time_stamp, *head.position, *head.read_dir, *head.phase_dir)
    return hashlib.sha256(repr(place).encode() + line.data.tobytes()).hexdigest()[:32]


def image_digest(image: ismrmrd.Image) -> str:
    """Digest of an image, 32 hexadecimal digits, where no gadget of this package has seen the raw data."""
    head = image.getHead()
    place = (head.measurement_uid, head.acquisition_time_stamp, *head.position)
    return hashlib.sha256(repr(place).encode() + image.data.tobytes()).hexdigest()[:32]

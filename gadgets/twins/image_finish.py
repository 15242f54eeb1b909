"""The end of the chain."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from gadgets.stream import Gadget

log = logging.getLogger("genrecon")


class ImageFinishGadget(Gadget):
    """Passes images to the writers; text messages end here."""

    def process(self, items: Iterator[Any]) -> Iterator[Any]:
        for item in items:
            if isinstance(item, str):
                log.info("%s", item)
            else:
                yield item

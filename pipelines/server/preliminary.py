"""A fast reconstruction of a whole scan, in case the one that was asked for is not ready in time."""

from __future__ import annotations

import contextlib
import copy
import logging
import threading
from collections.abc import Callable
from pathlib import Path

import ismrmrd

from gadgets.images import WARNINGS, meta_of, warnings_of
from gadgets.noise.scan import ChosenNoise
from gadgets.solvers.methods import foreign_option
from pipelines.chain import Chain
from pipelines.noise.streamed import noise_in_stream
from pipelines.raw import RawScan
from pipelines.replay import DICOM_MODULE
from pipelines.server.error_texts import where_raised

log = logging.getLogger("genrecon")

METHOD = "cg_sense"
FAST_METHODS = {METHOD, "zero_filled", "grappa"}
SERIES = 900  # added to the series index: no series of the final images has it
PRELIMINARY = "GenreconPreliminary"  # meta attribute
WARNING = f"PRELIMINARY image by {METHOD}: the reconstruction that was asked for comes later"
MOST_IMAGES = 256
# Properties of the reconstruction that mean something else for the fast method; those that mean nothing go too.
LEFT_OUT = {"regularisation", "iterations", "output", "replicas", "time_budget_s"}


def fast_chain(chain: Chain) -> Chain | None:
    """The chain with the fast method and no DICOM output; None where it has a fast one, or no such gadget."""
    fast = copy.copy(chain)
    fast.keep_reference = None  # the chain that was asked for keeps it
    fast = fast.without(DICOM_MODULE)
    for node in fast.nodes:
        prefix = "generative_recon." if node.module == "gadgets.reconstruction" else ""
        if node.module not in ("gadgets.reconstruction", "gadgets.generative_recon"):
            continue
        if node.properties.get(f"{prefix}method", "") in FAST_METHODS:
            return None
        for full_name in [full_name for full_name in node.properties if full_name.startswith(prefix)]:
            name = full_name.removeprefix(prefix)
            if name in LEFT_OUT or foreign_option(METHOD, {name}) is not None:
                del node.properties[full_name]
        node.properties[f"{prefix}method"] = METHOD
        return fast
    return None


class Preliminary:
    """Makes preliminary images of a raw file in a thread.

    Parameters
    ----------
    chain : of `fast_chain`
    raw : file of the whole scan
    noise : of the scan
    """

    def __init__(self, chain: Chain, raw: Path, noise: ChosenNoise | None) -> None:
        self._chain, self._raw, self._noise = chain, raw, noise
        self._images: list[ismrmrd.Image] = []
        self._ended = False
        self._stopping = threading.Event()
        self.thread = threading.Thread(target=self._run, name="preliminary", daemon=True)

    def images(self) -> list[ismrmrd.Image]:
        """All images, marked; none where they are not all ready. The thread ends."""
        self._stopping.set()
        return self._images if self._ended else []

    def _run(self) -> None:
        try:
            with RawScan(self._raw, as_they_are=True) as scan:
                own, lines = noise_in_stream(scan.header, scan.acquisitions(), self._noise)
                self._chain.noise = own
                with contextlib.closing(self._chain.run(scan.header, lines)) as items:  # type: ignore[type-var]
                    for item in items:
                        if self._stopping.is_set() or len(self._images) == MOST_IMAGES:
                            return
                        if isinstance(item, ismrmrd.Image):
                            self._images.append(_marked(item))
            self._ended = True
        except Exception as error:  # the final images come all the same
            log.info("no preliminary images: %s", where_raised(error))


def _marked(image: ismrmrd.Image) -> ismrmrd.Image:
    image.image_series_index = image.image_series_index + SERIES
    meta = meta_of(image.attribute_string)
    meta[PRELIMINARY] = "1"
    meta[WARNINGS] = [WARNING, *warnings_of(image)]
    meta["ImageComment"] = meta["GADGETRON_ImageComment"] = "PRELIMINARY"
    meta["SequenceDescriptionAdditional"] = "PRELIMINARY"
    image.attribute_string = str(meta.serialize())
    return image


def started(chain: Chain, raw: Callable[[], Path | None], noise: ChosenNoise | None) -> Preliminary | None:
    """Begin preliminary images; None where the chain has a fast method, or the raw file is not there."""
    fast = fast_chain(chain)
    path = raw() if fast is not None else None
    if fast is None or path is None:
        return None
    preliminary = Preliminary(fast, path, noise)
    preliminary.thread.start()
    return preliminary

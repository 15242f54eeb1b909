"""The answer to a client whose images are not ready in time, and what becomes of them then."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from gadgetron.external import writers

from gadgets.noise.scan import ChosenNoise, context_of
from gadgets.stream import PeerGone, ReconError, reason_of
from pipelines.chain import Chain
from pipelines.flat_parameters import ANSWER_WITHIN
from pipelines.kept.late import FETCH_BY, LateImages, LateState, begin_again
from pipelines.kept.recorder import ScanRecorder
from pipelines.kept.scan import KeptScan
from pipelines.raw import RawScan
from pipelines.server.memory_estimate import MemoryEstimate
from pipelines.server.preliminary import METHOD, Preliminary, started
from pipelines.server.replies import CLOSE, ReplyWriter
from pipelines.server.request import Request, seconds_of
from pipelines.server.scan import ScanResult
from pipelines.server.served_images import with_fire_meta

log = logging.getLogger("genrecon")

PRELIMINARY_SHARE = 0.5  # of the time to the answer, after which preliminary images are begun if there are none


class LateAnswer:
    """Answers a client some time after its last line came, and keeps the images that come later.

    Parameters
    ----------
    request : of the client
    kept : its kept raw data; None: they are not kept, and the client waits for all images
    recorder : that writes them
    writer : to the client
    answer_within_s : the server's time to the answer; 0: the client waits
    post : called when the answer is due, in another thread

    Attributes
    ----------
    noise : of the scan
    anonymize : nothing that identifies the patient may be kept
    first_image : set once there is an image
    active : the client had its answer; images are kept from here on
    """

    def __init__(
        self,
        request: Request,
        kept: KeptScan | None,
        recorder: ScanRecorder | None,
        writer: ReplyWriter,
        answer_within_s: float,
        post: Callable[[], None],
    ) -> None:
        self._request, self._kept, self._recorder, self._writer, self._post = request, kept, recorder, writer, post
        self._default_s = answer_within_s
        self._timers: list[threading.Timer] = []
        self._preliminary: Preliminary | None = None
        self._images: LateImages | None = None
        self._header: Any = None
        self._chain: Chain | None = None
        self._memory: MemoryEstimate | None = None
        self._began = time.time()
        self.noise: ChosenNoise | None = None
        self.anonymize = False
        self.first_image = threading.Event()
        self.active = False
        self._seconds = 0.0

    def configure(self, header: Any, chain: Chain, memory: MemoryEstimate) -> None:
        """Take header and chain of the scan. Raises ReconError for a parameter that is no time."""
        self._header, self._chain, self._memory = header, chain, memory
        self._seconds = seconds_of(self._request.parameters, *ANSWER_WITHIN, default=self._default_s)
        if self._request.again and self._kept is not None:
            self._images = LateImages(self._kept, begin_again(self._kept), again=True)
            self.active = True

    def all_came(self) -> None:
        """All lines have come: from now on the time runs."""
        if self._recorder is None or self.active or not self._seconds:
            return
        for seconds, what in ((PRELIMINARY_SHARE * self._seconds, self._begin), (self._seconds, self._post)):
            timer = threading.Timer(seconds, what)
            timer.daemon = True
            self._timers.append(timer)
            timer.start()

    def _begin(self) -> None:
        """Begin preliminary images, where there is none yet and memory for both reconstructions."""
        recorder, chain, memory = self._recorder, self._chain, self._memory
        if self.first_image.is_set() or recorder is None or chain is None or memory is None:
            return
        if 2 * memory.needed < memory.limit and recorder.flush():
            self._preliminary = started(chain, lambda: self._kept.stream if self._kept else None, self.noise)

    def answer(self, images: int, goes_to_files: bool) -> bool:
        """Tell the client what it gets when, and end its connection. Returns False where it has to wait for all images.

        Parameters
        ----------
        images : number of images that were sent
        goes_to_files : whether the chain writes DICOM
        """
        kept = self._kept
        if kept is None or self._recorder is None or not self._recorder.flush():
            return False
        try:
            state = LateState(
                sent=images,
                expected=_expected_images(kept),
                began=self._began,
                peer=self._request.peer,
                context={} if self.anonymize else context_of(self._header),
            )
            self._images = LateImages(kept, state)
        except OSError as error:
            log.warning("late images cannot be kept (%s): the client waits for all images", reason_of(error))
            return False
        self.active = True
        preliminary = self._preliminary.images() if self._preliminary and not images else []
        text = f"{state.progress()} are ready; the reconstruction goes on. "
        if preliminary:
            text += f"{len(preliminary)} PRELIMINARY images by {METHOD} are sent instead. "
        text += f"Fetch the others {FETCH_BY}{kept.id}"
        text += "; they are also written as DICOM" if goes_to_files else ""
        windows: dict[int, tuple[float, float]] = {}
        try:
            for image in preliminary:
                writers.write_image(self._writer, with_fire_meta(image, windows))
            self._writer.text("WARNING", text, self._request.of_fire)
            self._writer.write(CLOSE)
        except PeerGone as error:
            log.warning("%s before it could read that its images come later", error)
        log.info("%s are ready; the reconstruction goes on without its client", state.progress())
        return True

    def add(self, image: Any) -> None:
        """Keep an image. Raises OSError."""
        assert self._images is not None
        self._images.add(image)

    def end(self, result: ScanResult, warnings: list[str], goes_to_files: bool) -> ScanResult:
        """The reconstruction has ended; how the scan ends."""
        self.cancel()
        if self._images is None:
            return result
        error = result.client_error or result.error
        try:
            self._images.finish(error, warnings, in_files=goes_to_files)
        except OSError as failure:
            error = error or f"late images cannot be kept ({reason_of(failure)})"
        return ScanResult(error)

    def cancel(self) -> None:
        """No answer is due any more."""
        for timer in self._timers:
            timer.cancel()
        if self._preliminary is not None:
            self._preliminary.images()


def _expected_images(kept: KeptScan) -> int:
    try:
        with RawScan(kept.stream, as_they_are=True) as scan:
            return scan.survey().images(averaged=True)
    except ReconError:
        return 0

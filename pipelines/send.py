"""A client that sends a scan to a server and writes its images to a file."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import ismrmrd

from gadgets.images import warnings_of
from gadgets.stream import ReconError
from gadgets.stream.logs import collected_warnings
from pipelines.chain import read_chain
from pipelines.kept.again import KeptRequest
from pipelines.kept.late import FETCH_BY, RETRIEVE
from pipelines.kept.scan import KeptScan
from pipelines.raw import RawScan
from pipelines.replay import IMAGES_FILE, IMAGES_GROUP
from pipelines.staging import staged_folder
from pipelines.wire import reconstruct_remotely

Progress = Callable[[int], None]  # called with the number of images that came


@dataclass
class SendResult:
    """What a server sent back, with times in seconds since the connection."""

    images: int = 0
    first_image_s: float = 0.0
    last_image_s: float = 0.0
    texts: tuple[str, ...] = ()
    warnings: list[str] = field(default_factory=list)  # about the file, and those of the images

    @property
    def comes_later(self) -> bool:
        """Whether the server said how to fetch images that were not ready."""
        return any(FETCH_BY in text for text in self.texts)


def send(
    raw: Path,
    config: str,
    address: str,
    *,
    group: str = "",
    out: Path | None = None,
    parameters: Mapping[str, str] | None = None,
    timeout: float = 600.0,
    progress: Progress | None = None,
) -> SendResult:
    """Send a raw file to an MRD server and receive its images.

    Parameters
    ----------
    raw : ISMRMRD file
    config : XML file of a chain, which is sent; or the name of a chain of the server
    address : HOST:PORT
    group : of a file with several measurements, the name of the one to send (see `RawScan`)
    out : folder for images.h5, as a replay writes it; None: images are only counted
    parameters : sent as JSON after the header, as FIRE does
    timeout : longest time without an answer, in seconds
    progress : called with the number of images that came

    A noise measurement, whose lines are all noise, has no image.

    Raises
    ------
    ReconError
        The file cannot be read, no server answers, it reports an error or sends nothing in time, or no image came.
    """
    if "/" in config and not Path(config).is_file():
        raise ReconError(f"{config}: there is no such file; give one, or the name of a chain of the server")
    chain: bytes | str = read_chain(config).to_xml() if Path(config).is_file() else config
    text = json.dumps({"version": "1.0", "parameters": dict(parameters)}).encode() if parameters else b""
    result = SendResult()
    with RawScan(raw, group) as scan, collected_warnings(result.warnings):
        lines = scan.noise_lines() if scan.noise_only else scan.acquisitions()
        items = reconstruct_remotely(address, chain, scan.header_xml, lines, timeout, text)
        missing = f"{raw}: no image came back from {address}; see its log" * (not scan.noise_only)
        _receive(items, result, out, missing, progress)
    return result


def send_again(
    kept: KeptScan,
    address: str,
    *,
    out: Path | None = None,
    timeout: float = 600.0,
    progress: Progress | None = None,
) -> SendResult:
    """Send a scan that a server kept once more, as its client sent it: the same chain, parameters, header and lines.

    Parameters, result and errors are those of `send`.
    """
    result = SendResult()
    with KeptRequest(kept) as request, collected_warnings(result.warnings):
        items = reconstruct_remotely(address, request.config, request.header, request.items(), timeout, *request.texts)
        missing = f"{kept.id}: no image came back from {address}; see its log"
        _receive(items, result, out, missing * (not request.noise_only), progress)
    return result


def retrieve(
    identifier: str,
    address: str,
    *,
    wait_s: float = 0.0,
    out: Path | None = None,
    timeout: float = 600.0,
    progress: Progress | None = None,
) -> SendResult:
    """Fetch late images of a scan.

    Parameters
    ----------
    identifier : id that the server gave
    wait_s : how long to wait for images that are not ready
    address, out, timeout, progress : as for `send`

    Raises
    ------
    ReconError
        As `send`, or the images are not ready.
    """
    result = SendResult()
    text = json.dumps({"parameters": {"scan": identifier, "wait": wait_s}}).encode()
    items = reconstruct_remotely(address, RETRIEVE, b"", (), max(timeout, wait_s + 10), text)
    try:
        _receive(items, result, out, "no late image came", progress)
    except ReconError as error:
        prefix = "" if str(error).startswith(f"server {address}") else f"server {address}: "
        raise ReconError("; ".join([f"{prefix}{error}", *result.texts])) from None
    return result


def _receive(
    items: Iterator[ismrmrd.Image | str],
    result: SendResult,
    out: Path | None,
    missing: str,
    progress: Progress | None,
) -> None:
    """Take what a server sends. Raises ReconError with the text `missing`, if that is not empty, without an image."""
    start = time.perf_counter()

    def images() -> Iterator[ismrmrd.Image]:
        for item in items:
            if isinstance(item, str):
                result.texts += (item,)
                continue
            result.images += 1
            for warning in warnings_of(item):
                if warning not in result.warnings:
                    result.warnings.append(warning)
            result.last_image_s = time.perf_counter() - start
            result.first_image_s = result.first_image_s or result.last_image_s
            if progress:
                progress(result.images)
            yield item
        if not result.images and missing and not result.comes_later:
            raise ReconError(missing)

    if out is None:
        for _ in images():
            pass
        return
    with (
        staged_folder(out.absolute()) as staging,
        ismrmrd.Dataset(str(staging / IMAGES_FILE), IMAGES_GROUP, mode="w") as dataset,
    ):
        for image in images():
            dataset.append_image(f"image_{image.image_series_index}", image)

"""A client that sends a scan to a server and writes its images to a file."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import ismrmrd

from gadgets.images import meta_of, meta_values
from gadgets.stream import ReconError
from gadgets.stream.logs import collected_warnings
from pipelines.chain import read_chain
from pipelines.raw import RawScan
from pipelines.replay import IMAGES_FILE, IMAGES_GROUP
from pipelines.staging import staged_folder
from pipelines.wire import reconstruct_remotely


@dataclass
class SendResult:
    """What a server sent back, with times in seconds since the connection."""

    images: int = 0
    first_image_s: float = 0.0
    last_image_s: float = 0.0
    texts: tuple[str, ...] = ()
    warnings: list[str] = field(default_factory=list)  # about the file, and those of the images


def send(
    raw: Path,
    config: str,
    address: str,
    *,
    group: str = "",
    out: Path | None = None,
    parameters: Mapping[str, str] | None = None,
    timeout: float = 600.0,
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
        start = time.perf_counter()

        def images() -> Iterator[ismrmrd.Image]:
            for item in items:
                if isinstance(item, str):
                    result.texts += (item,)
                    continue
                result.images += 1
                for warning in meta_values(meta_of(item.attribute_string), "GenreconWarning"):
                    if warning not in result.warnings:
                        result.warnings.append(warning)
                result.last_image_s = time.perf_counter() - start
                result.first_image_s = result.first_image_s or result.last_image_s
                yield item
            if not result.images and not scan.noise_only:
                raise ReconError(f"{raw}: no image came back from {address}; see its log")

        if out is None:
            for _ in images():
                pass
            return result
        with (
            staged_folder(out.absolute()) as staging,
            ismrmrd.Dataset(str(staging / IMAGES_FILE), IMAGES_GROUP, mode="w") as dataset,
        ):
            for image in images():
                dataset.append_image(f"image_{image.image_series_index}", image)
    return result

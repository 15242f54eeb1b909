"""Replay over a dask cluster: every slice of every raw file is a task of its own."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ismrmrd
import numpy as np

from gadgets.acquisition import is_for_images
from gadgets.finish import SCALE_RATIO, make_image, meta_of, meta_values
from gadgets.stream import ReconError, StageTiming, one_line
from pipelines.chain import Chain, Node
from pipelines.raw import RawScan

CONNECTING = 10.0  # seconds that a scheduler may take to answer
RECONSTRUCTIONS = ("gadgets.generative_recon", "gadgets.reconstruction")


@dataclass
class SliceResult:
    """What a worker made of one slice: images as (header, pixels, meta), and what replay tells of a run."""

    images: list[tuple[bytes, np.ndarray, str]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    timings: list[StageTiming] = field(default_factory=list)

    @property
    def pixel_scale(self) -> float:
        """Of the first image that tells it; 0 if none does."""
        texts = (meta_values(meta_of(meta), SCALE_RATIO) for _, _, meta in self.images)
        return next((float(found[0]) for found in texts if found), 0.0)


def dask_client(address: str) -> Any:
    """Client of a dask scheduler.

    Raises ReconError when dask.distributed is not installed, or nobody answers.
    """
    try:
        from distributed import Client
    except ImportError:
        raise ReconError("--dask: dask.distributed is not installed; pip install 'gadgetron-genrecon[dask]'") from None
    try:
        return Client(address, timeout=CONNECTING)
    except (OSError, ValueError, TimeoutError) as error:
        raise ReconError(
            f"--dask {address}: no dask scheduler answers there ({one_line(error)}); start `dask scheduler` and give "
            "tcp://HOST:PORT"
        ) from None


class DaskReplay:
    """The slices of one raw file, spread over the workers of a cluster as soon as it is made.

    All slices have the pixel scale of the first one, as in a replay on one machine; so that one is waited for.

    Parameters
    ----------
    client : see `dask_client`
    raw : raw file; the workers must see it under the same path
    chain : what they run
    """

    def __init__(self, client: Any, raw: Path, chain: Chain) -> None:
        self._raw = raw.resolve()
        with RawScan(raw) as scan:
            heads = scan.heads()
            noise = np.uint64(1 << (ismrmrd.ACQ_IS_NOISE_MEASUREMENT - 1))
            slices = heads["idx"]["slice"][(heads["flags"] & noise) == 0]
        # In the order in which a replay finishes them: that of their last lines.
        last = {int(number): index for index, number in enumerate(slices)}
        numbers = sorted(last, key=lambda number: last[number]) or [0]
        xml = chain.to_xml()
        first = client.submit(reconstruct_slice, str(self._raw), xml, chain.name, numbers[0], None, pure=False)
        self._futures = [first]
        for number in numbers[1:]:
            self._futures.append(
                client.submit(reconstruct_slice, str(self._raw), xml, chain.name, number, first, pure=False)
            )

    def images(self, timings: list[StageTiming]) -> Iterator[ismrmrd.Image]:
        """Images of all slices, in order. Raises ReconError when a slice failed; its error in one line."""
        log = logging.getLogger("genrecon")
        try:
            for future in self._futures:
                try:
                    result: SliceResult = future.result()
                except ReconError:
                    raise
                except Exception as error:
                    raise ReconError(f"{self._raw}: dask: {one_line(error)}; see the workers' logs") from None
                for text in result.warnings:
                    log.warning("%s", text)
                for timing in result.timings:
                    known = next((one for one in timings if one.name == timing.name), None)
                    if known is None:
                        timings.append(timing)
                        continue
                    known.busy += timing.busy
                    known.items_in += timing.items_in
                    known.items_out += timing.items_out
                for header, pixels, meta in result.images:
                    yield make_image(ismrmrd.ImageHeader.from_buffer_copy(header), pixels, meta)
        finally:
            for future in self._futures:
                future.cancel()


def reconstruct_slice(raw: str, xml: bytes, name: str, number: int, first: SliceResult | None) -> SliceResult:
    """Run a chain over the lines of one slice, and those of the noise.

    Parameters
    ----------
    raw : raw file
    xml, name : chain
    number : slice
    first : result of the slice whose pixel scale this one has too

    Raises
    ------
    ReconError
        As `replay`.
    """
    from pipelines.replay import collected_warnings

    chain = Chain(xml, name)
    if first is not None and first.pixel_scale:
        for node in chain.nodes:
            _set_scale(node, first.pixel_scale)
    result = SliceResult()
    with RawScan(raw) as scan, collected_warnings(result.warnings):
        for item in chain.run(scan.header, _lines(scan, number), timings=result.timings):
            if isinstance(item, ismrmrd.Image):
                result.images.append((bytes(item.getHead()), item.data, item.attribute_string))
    return result


def _set_scale(node: Node, scale: float) -> None:
    if node.module in RECONSTRUCTIONS:
        prefix = "generative_recon." if node.module == RECONSTRUCTIONS[1] else ""
        if node.properties.get(f"{prefix}intensity", "1") not in {"0", "0.0"}:
            node.properties[f"{prefix}pixel_scale"] = repr(scale)


def _lines(scan: RawScan, number: int) -> Iterator[Any]:
    for line in scan.acquisitions():
        if not is_for_images(line) or line.idx.slice == number:
            yield line

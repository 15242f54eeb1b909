"""Replay over a dask cluster: every slice of every raw file is a task of its own."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ismrmrd
import numpy as np

from gadgets.acquisition_flags import is_calibration_only, is_for_images
from gadgets.images import SCALE_RATIO, make_image, meta_of, meta_values
from gadgets.noise.scan import ChosenNoise
from gadgets.stream import ReconError, StageTiming, one_line
from gadgets.stream.logs import collected_warnings
from pipelines.chain import Chain
from pipelines.noise.sources import choose_noise
from pipelines.raw import RawScan
from pipelines.scan_scale import set_pixel_scale
from priors.prior_list import with_absolute_files

CONNECT_TIMEOUT_S = 10.0  # for the scheduler's answer


@dataclass
class SliceResult:
    """The result of a worker for one slice: images as (header, pixels, meta), warnings and timings."""

    images: list[tuple[bytes, np.ndarray, str]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    timings: list[StageTiming] = field(default_factory=list)


def pixel_scale(result: SliceResult) -> float:
    """Pixel scale of the first image that is not empty; 0 if there is none."""
    for _, pixels, meta in result.images:
        found = meta_values(meta_of(meta), SCALE_RATIO)
        if found and pixels.any():
            return float(found[0])
    return 0.0


def dask_client(address: str) -> Any:
    """Client of a dask scheduler.

    Raises ReconError when dask.distributed is not installed, or no scheduler or worker answers.
    """
    try:
        from distributed import Client
    except ImportError:
        raise ReconError("--dask: dask.distributed is not installed; pip install 'gadgetron-genrecon[dask]'") from None
    try:
        client = Client(address, timeout=CONNECT_TIMEOUT_S)
    except (OSError, ValueError, TypeError, TimeoutError) as error:
        raise ReconError(
            f"--dask {address}: no dask scheduler answers there ({one_line(error)}); start `dask scheduler` and give "
            "tcp://HOST:PORT"
        ) from None
    try:
        client.wait_for_workers(1, timeout=CONNECT_TIMEOUT_S)
    except TimeoutError:
        client.close()
        raise ReconError(f"--dask {address}: the scheduler has no worker; start `dask worker {address}`") from None
    return client


class DaskReplay:
    """The slices of one raw file, submitted to the workers of a cluster when it is created.

    All slices have the pixel scale of the first one that is not empty, as in a replay on one machine, so the others
    wait for that one.

    Parameters
    ----------
    client : see `dask_client`
    raw : raw file; the workers must see it under the same path
    chain : run by the workers; it must reconstruct slices independently, as the shipped ones do
    noise : as `pipelines.replay.replay`
    noise_named : whether images may say which file or measurement that is
    group : of a file with several measurements, the name of one

    Raises
    ------
    ReconError
        The file cannot be read, the chain trains a prior on the scan, or its list of priors is none.
    """

    def __init__(
        self, client: Any, raw: Path, chain: Chain, noise: str = "", group: str = "", noise_named: bool = True
    ) -> None:
        self._raw = raw.absolute()
        for node in chain.nodes:
            if "self" in (node.properties.get("training"), node.properties.get("generative_recon.training")):
                raise ReconError("--dask: training=self trains on the whole scan; replay it without --dask")
            for name in ("prior", "generative_recon.prior"):
                if node.properties.get(name):
                    try:
                        node.properties[name] = with_absolute_files(node.properties[name])
                    except ValueError as error:
                        raise ReconError(f"property '{name}': {error}") from None
        with RawScan(raw, group) as scan:
            chosen_noise = choose_noise(scan, noise, noise_named) if chain.prewhitens else None
            chain.noise = chosen_noise
            set_pixel_scale(chain, scan)
            heads = _heads(scan)
            last = {head.idx.slice: index for index, head in enumerate(heads) if _is_imaging(head)}
            # In the order in which a replay finishes them: that of their last lines.
            numbers = sorted(last, key=lambda number: last[number]) or [0]

            def filled(number: int) -> bool:
                chosen = [_is_imaging(head) and head.idx.slice == number for head in heads]
                return any(line.data.any() for line in scan.acquisitions(chosen))

            leading = next(filter(filled, numbers), numbers[0])
        xml = chain.to_xml()

        def submit(number: int, scale: Any) -> Any:
            return client.submit(
                reconstruct_slice, str(self._raw), xml, chain.name, number, scale, chosen_noise, group, pure=False
            )

        first = submit(leading, 0.0)
        scale = client.submit(pixel_scale, first, pure=False)
        self._futures = [first if number == leading else submit(number, scale) for number in numbers]

    def close(self) -> None:
        """Cancel the slices that are not finished."""
        for future in self._futures:
            future.cancel()

    def images(self, timings: list[StageTiming]) -> Iterator[ismrmrd.Image]:
        """Images slice by slice. Raises ReconError when a slice failed; its error in one line."""
        log = logging.getLogger("genrecon")
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


_one_at_a_time = threading.Lock()  # warnings are collected from all of the process


def reconstruct_slice(
    raw: str, xml: bytes, name: str, number: int, scale: float, noise: ChosenNoise | None = None, group: str = ""
) -> SliceResult:
    """Run a chain over the lines of one slice, and those that are not for images.

    Parameters
    ----------
    raw : raw file
    xml, name : chain
    number : slice
    scale : pixel scale; 0: by the slice itself
    noise : that the scan is prewhitened with
    group : of a file with several measurements, the name of one

    Raises
    ------
    ReconError
        As `replay`, or this worker does not see the file.
    """
    if not Path(raw).exists():
        raise ReconError(f"{raw}: a dask worker does not see it; start workers where the files have the same path")
    chain = Chain(xml, name)
    chain.noise = noise
    if scale:
        with contextlib.suppress(ReconError):  # a chain without our reconstruction
            chain.set("generative_recon", "pixel_scale", repr(scale))
    result = SliceResult()
    with _one_at_a_time, RawScan(raw, group) as scan, collected_warnings(result.warnings):
        chosen = [not is_for_images(head) or head.idx.slice == number for head in _heads(scan)]
        survey = scan.survey(chosen)
        for item in chain.run(scan.header, scan.acquisitions(chosen), timings=result.timings, survey=survey):
            if isinstance(item, ismrmrd.Image):
                result.images.append((bytes(item.getHead()), item.data, item.attribute_string))
            elif isinstance(item, str):
                result.warnings.append(item)
    return result


def _heads(scan: RawScan) -> list[ismrmrd.AcquisitionHeader]:
    return [ismrmrd.AcquisitionHeader.from_buffer_copy(head.tobytes()) for head in scan.heads()]


def _is_imaging(head: ismrmrd.AcquisitionHeader) -> bool:
    return is_for_images(head) and not is_calibration_only(head)

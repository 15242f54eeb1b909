"""One pixel scale for all images of a file, from its brightest image, before the first one is reconstructed."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
from gadgetron.types import ReconData

from gadgets.acquisitions import MERGED_COUNTERS
from gadgets.buffers import kspace_problems, sampled
from gadgets.generative_recon import GenerativeRecon
from gadgets.readouts import kept_samples
from gadgets.stream import ReconError
from gadgets.survey import lines_by_flags
from pipelines.chain import Chain
from pipelines.raw import RawScan
from priors.signal.scale import image_scale

log = logging.getLogger("genrecon")

MOST_IMAGES = 512  # whose energy is looked at, evenly over the scan
LINES_EACH = 4  # at the centre of k-space
MOST_LEVELS = 4  # images whose level is measured, those of the most energy
MOST_LINES = 4096  # of these images together
MEMBER = "generative_recon"


def set_pixel_scale(chain: Chain, scan: RawScan) -> None:
    """Set `pixel_scale` of a chain's reconstruction so that the file's brightest image has the chain's `intensity`.

    It is left alone where the user has set it, the scan has one image, or the chain is none of ours up to its buffers.

    Parameters
    ----------
    chain : with the noise that it prewhitens with
    scan : the file
    """
    intensity = _wanted_intensity(chain)
    if not intensity:
        return
    heads = scan.heads()
    images = _images(heads)
    if len(images) < 2:
        return
    with _without_log(), contextlib.suppress(ReconError):  # the replay itself raises and logs it again
        level = _brightest_level(chain, scan, heads, images)
        if level:
            chain.set(MEMBER, "pixel_scale", f"{intensity / level:.2g}")


def _wanted_intensity(chain: Chain) -> float:
    """Property `intensity` of the chain's reconstruction; 0 where it needs no scale."""
    for node in chain.nodes:
        kind = None if node.address else _kind(node)
        prefix = "" if kind is GenerativeRecon else f"{MEMBER}."
        if kind is None or (prefix and MEMBER not in getattr(kind, "members", {})):
            continue
        with contextlib.suppress(ValueError):  # the gadget refuses what is no number
            given = float(node.properties.get(f"{prefix}pixel_scale", 0))
            default = GenerativeRecon.Parameters().intensity
            return 0.0 if given else float(node.properties.get(f"{prefix}intensity", default))
    return 0.0


def _kind(node: Any) -> Any:
    try:
        return node.load()
    except ReconError:
        return None


def _images(heads: Any) -> list[Any]:
    """For each image of a scan, or of evenly chosen ones, which lines it has: indices (line,), ascending."""
    for_images, calibration = lines_by_flags(heads["flags"])
    columns = [heads["encoding_space_ref"], *(heads["idx"][name] for name in MERGED_COUNTERS)]
    table = np.stack([np.asarray(column).astype(np.int64) for column in columns], axis=1)
    _, place = np.unique(table, axis=0, return_inverse=True)
    place = place.reshape(len(table))
    found = np.unique(place[for_images & ~calibration])
    if not len(found):
        return []
    chosen = found[np.unique(np.linspace(0, len(found) - 1, min(len(found), MOST_IMAGES)).round().astype(int))]
    return [np.flatnonzero(for_images & (place == number)) for number in chosen]


def _brightest_level(chain: Chain, scan: RawScan, heads: Any, images: list[Any]) -> float:
    """Signal level of the brightest image, in the units in which the chain's reconstruction gets it."""
    central = np.zeros(len(heads), dtype=bool)
    for lines in images:
        central[_central(heads, lines)] = True
    energies: dict[int, float] = {}
    for index, acquisition in zip(np.flatnonzero(central), scan.acquisitions(central.tolist()), strict=False):
        energies[int(index)] = float(np.linalg.norm(kept_samples(acquisition)) ** 2)
    ranked = sorted(images, key=lambda lines: -max(energies.get(int(i), 0.0) for i in lines[central[lines]]))
    counts = np.cumsum([len(lines) for lines in ranked])
    brightest = ranked[: max(1, int((counts <= MOST_LINES).sum()))][:MOST_LEVELS]
    return max((_level(chain, scan, lines) for lines in brightest), default=0.0)


def _central(heads: Any, lines: Any) -> Any:
    """The lines of an image that are nearest to the middle of its phase encodings."""
    distance = np.zeros(len(lines))
    for name in ("kspace_encode_step_1", "kspace_encode_step_2"):
        steps = heads["idx"][name][lines].astype(float)
        distance += np.abs(steps - (steps.min() + steps.max() + 1) // 2)
    return lines[np.argsort(distance, kind="stable")[:LINES_EACH]]


def _level(chain: Chain, scan: RawScan, lines: Any) -> float:
    """Signal level of one image: that of its buffers, from the chain's gadgets up to these."""
    head = chain.up_to_buffers()
    if head is None:
        return 0.0
    chosen = scan.noise_flags.copy()
    chosen[lines] = True
    level = 0.0
    for item in head.run(scan.header, scan.acquisitions(chosen.tolist()), survey=scan.survey(chosen)):
        for bit in item.bits if isinstance(item, ReconData) else ():
            data = bit.data.data
            for n, s, location in np.ndindex(*data.shape[4:]):
                part = data[..., n, s, location]
                if part.any():
                    level = max(level, float(image_scale(kspace_problems(part), sampled(part)[:, None]).max()))
    return level


@contextlib.contextmanager
def _without_log() -> Iterator[None]:
    def nothing(record: logging.LogRecord) -> bool:
        return False

    log.addFilter(nothing)
    try:
        yield
    finally:
        log.removeFilter(nothing)

"""One pixel scale for all images of a file, from its brightest image, before the first one is reconstructed."""

from __future__ import annotations

import contextlib
import copy
import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
from gadgetron.types import ReconData

from gadgets.acquisition_flags import is_calibration_only, is_for_images
from gadgets.buffers import kspace_problems, sampled
from gadgets.generative_recon import GenerativeRecon
from gadgets.readouts import kept_samples
from gadgets.stream import ReconError
from pipelines.chain import Chain
from pipelines.raw import RawScan
from priors.signal.scale import image_scale

log = logging.getLogger("genrecon")

COUNTERS = ("slice", "contrast", "phase", "repetition", "set")  # that tell images apart, averages aside
MOST_IMAGES = 512  # whose energy is looked at, evenly over the scan
LINES_EACH = 4  # at the centre of k-space
MOST_LINES = 4096  # of the images whose level is measured
BUFFER_GADGET = "BucketToBufferGadget"
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
    images = _images(scan.heads())
    if len(images) < 2:
        return
    with _without_log(), contextlib.suppress(ReconError):  # the replay itself raises and logs it again
        level = _brightest_level(chain, scan, images)
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
    """For each image of a scan, or of evenly chosen ones, which lines it has: bool (line,) arrays."""
    flags = heads["flags"].tolist()
    for_images = np.array([is_for_images(bits) for bits in flags], dtype=bool)
    imaging = for_images & ~np.array([is_calibration_only(bits) for bits in flags], dtype=bool)
    columns = [heads["encoding_space_ref"], *(heads["idx"][name] for name in COUNTERS)]
    table = np.stack([np.asarray(column).astype(np.int64) for column in columns], axis=1)
    _, place = np.unique(table, axis=0, return_inverse=True)
    place = place.reshape(len(table))
    found = np.unique(place[imaging])
    if not len(found):
        return []
    chosen = found[np.unique(np.linspace(0, len(found) - 1, min(len(found), MOST_IMAGES)).round().astype(int))]
    return [for_images & (place == number) for number in chosen]


def _brightest_level(chain: Chain, scan: RawScan, images: list[Any]) -> float:
    """Signal level of the brightest image, in the units in which the chain's reconstruction gets it."""
    heads = scan.heads()
    central = np.zeros(len(heads), dtype=bool)
    for lines in images:
        central[_central(heads, lines)] = True
    energies: dict[int, float] = {}
    for index, acquisition in zip(np.flatnonzero(central), scan.acquisitions(central.tolist()), strict=False):
        energies[int(index)] = float(np.linalg.norm(kept_samples(acquisition)) ** 2)
    ranked = sorted(images, key=lambda lines: -max(energies.get(int(i), 0.0) for i in np.flatnonzero(lines & central)))
    counts = np.cumsum([int(lines.sum()) for lines in ranked])
    brightest = ranked[: max(1, int((counts <= MOST_LINES).sum()))][:LINES_EACH]
    return max((_level(chain, scan, lines) for lines in brightest), default=0.0)


def _central(heads: Any, lines: Any) -> Any:
    """The lines of an image that are nearest to the middle of its phase encodings."""
    indices = np.flatnonzero(lines)
    distance = np.zeros(len(indices))
    for name in ("kspace_encode_step_1", "kspace_encode_step_2"):
        steps = heads["idx"][name][indices].astype(float)
        distance += np.abs(steps - (steps.min() + steps.max() + 1) // 2)
    return indices[np.argsort(distance, kind="stable")[:LINES_EACH]]


def _level(chain: Chain, scan: RawScan, lines: Any) -> float:
    """Signal level of one image: that of its buffers, from the chain's gadgets up to these."""
    names = [node.classname for node in chain.nodes]
    if BUFFER_GADGET not in names:
        return 0.0
    head = copy.copy(chain)
    head.nodes = chain.nodes[: names.index(BUFFER_GADGET) + 1]
    chosen = (lines | scan.noise_flags).tolist()
    level = 0.0
    for item in head.run(scan.header, scan.acquisitions(chosen), survey=scan.survey(chosen)):
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

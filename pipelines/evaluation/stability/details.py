"""Small details that are inserted into the object, and how much of them an image recovers."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from gadgets.stream import ReconError
from pipelines.evaluation.cases import Array, Case, received_kspace
from pipelines.evaluation.metrics import OBJECT_THRESHOLD
from priors.signal.fourier import ifft2c

MARGIN = 2  # pixels around a detail that belong to its neighbourhood

Details = dict[str, tuple[Array, tuple[slice, slice]]]


def place_details(reference: Array) -> Details:
    """A line (1 pixel wide, 20 long, oblique by 12 degrees), a disc (radius 2.5 pixels) and a text (8 pixels high).

    Each goes where the image deviates least within the detail's neighbourhood, which lies inside the object as far as
    it can and does not overlap that of another detail; the first such place in reading order.

    Parameters
    ----------
    reference : float32 (y, x), of maximum 1

    Returns
    -------
    By name: float32 (y, x), 0 to 1, of the whole image; rows and columns of the neighbourhood.

    Raises
    ------
    ReconError
        They do not fit into the image.
    """
    placed: Details = {}
    taken = np.zeros(reference.shape, bool)
    shapes = {"text": _text("SEE"), "line": _line(20, math.radians(12)), "disc": _disc(2.5)}  # the largest first
    for name, shape in shapes.items():
        height, width = (n + 2 * MARGIN for n in shape.shape)
        mean, square, inside, overlap = (
            _box_means(image, height, width) for image in (reference, reference**2, reference > OBJECT_THRESHOLD, taken)
        )
        deviation = np.sqrt(np.maximum(square - mean**2, 0)).round(4)  # so that rounding does not choose the place
        cost = np.where(overlap > 0, np.inf, deviation + 10 * (1 - inside))
        if not np.isfinite(cost).any():
            raise ReconError(
                f"stability: an image of {reference.shape[0]} x {reference.shape[1]} has no room for the details; "
                "take data of 48 x 48 or more"
            )
        row, column = np.unravel_index(int(cost.argmin()), cost.shape)
        box = slice(int(row), int(row) + height), slice(int(column), int(column) + width)
        whole = np.zeros(reference.shape, np.float32)
        whole[box] = np.pad(shape, MARGIN)
        taken[box] = True
        placed[name] = whole, box
    return {name: placed[name] for name in ("line", "disc", "text")}


def _line(length: int, angle: float) -> Array:
    half = math.ceil(length / 2 * math.tan(angle))
    y, x = np.mgrid[-half : half + 1, :length]
    return np.clip(1 - np.abs(y * math.cos(angle) - (x - (length - 1) / 2) * math.sin(angle)), 0, 1)


def _disc(radius: float) -> Array:
    half = math.floor(radius + 0.5)
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    return np.clip(radius + 0.5 - np.hypot(y, x), 0, 1)


def _text(letters: str) -> Array:
    image = Image.new("L", (20 * len(letters), 40))
    draw = ImageDraw.Draw(image)
    draw.fontmode = "1"
    draw.text((5, 5), letters, fill=1, font=ImageFont.load_default())
    return np.asarray(image.crop(image.getbbox()), float)


def _box_means(image: Array, height: int, width: int) -> Array:
    """Means over all boxes of a size, by the place of their upper left corner."""
    sums = np.pad(image.astype(float).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    boxes = sums[height:, width:] - sums[:-height, width:] - sums[height:, :-width] + sums[:-height, :-width]
    return (boxes / (height * width)).round(12)


def sensitivities(kspace: Array) -> Array:
    """Coil images over their root-sum-of-squares, complex64 (coil, y, x): they have the phase of the object."""
    coils = ifft2c(torch.from_numpy(kspace)).numpy()
    norm = np.linalg.norm(coils, axis=0)
    return np.divide(coils, norm, out=np.zeros_like(coils), where=norm > 0)


def detail_changes(case: Case, details: Details, contrast: float) -> Case:
    """The case with details added to its object; its reference is brighter there by `contrast`."""
    change = contrast * np.sum([shape for shape, _ in details.values()], axis=0)
    return replace(case, kspace=case.kspace + received_kspace(change, sensitivities(case.kspace)))


def recovery(change: Array, truth: Array) -> tuple[float, float]:
    """How much of the true change a change has (least-squares projection, 1: all), and their correlation."""
    if not truth.any():
        return 0.0, 0.0
    fraction = float(np.vdot(truth, change) / np.vdot(truth, truth))
    change, truth = change - change.mean(), truth - truth.mean()
    norms = float(np.linalg.norm(change) * np.linalg.norm(truth))
    return fraction, float(np.vdot(truth, change)) / norms if norms else 0.0

"""The chart of quality against time."""

from __future__ import annotations

import io
import textwrap
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox


def scatter(points: Sequence[tuple[str, float, float]]) -> bytes:
    """PNG of quality against time: one labelled marker for each (label, seconds, PSNR)."""
    figure = Figure((4.8, 3.8), dpi=192, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    seconds = np.maximum([point[1] for point in points], 1e-3)
    axes.plot(seconds, [point[2] for point in points], "o", color="#1f4e8c", markersize=6)
    axes.set_xscale("log")
    axes.set_xlim(seconds.min() / 2, seconds.max() * 8)  # room for labels
    axes.margins(y=0.15)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_xlabel("seconds (logarithmic)")
    axes.set_ylabel("PSNR (dB)")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e3e3e3", linewidth=0.6)
    axes.set_axisbelow(True)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a label in a script the font does not have
        figure.draw_without_rendering()  # the place of the axes, for that of the labels
        _place_labels(figure, axes, [(label, x, psnr) for x, (label, _, psnr) in zip(seconds, points, strict=True)])
        figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _place_labels(figure: Figure, axes: Any, points: Sequence[tuple[str, float, float]]) -> None:
    """Write each label right or left of its marker where it is free, further up or down where it is crowded."""
    renderer: Any = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    centres = axes.transData.transform([point[1:] for point in points])
    taken = [Bbox.from_extents(x - 9, y - 9, x + 9, y + 9) for x, y in centres]
    sides = [(side * 6, rise) for rise in (0, 9, -9, 18, -18, 27, -27, 36, -36) for side in (1, -1)]
    for index, (label, x, y) in enumerate(points):
        for last, (dx, dy) in [*((False, side) for side in sides), (True, sides[0])]:
            text = axes.annotate(
                textwrap.fill(label[:60], 22), (x, y), (dx, dy),
                textcoords="offset points", ha="left" if dx > 0 else "right", va="center", fontsize=8, linespacing=1.0,
                parse_math=False, arrowprops={"arrowstyle": "-", "linewidth": 0.5, "color": "#888888"} if dy else None,
            )  # fmt: skip
            text.set_in_layout(False)
            text.update_positions(renderer)
            box = Text.get_window_extent(text, renderer)
            inside = axes.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 and axes.bbox.y0 <= box.y0 <= axes.bbox.y1
            if last or (inside and not any(box.overlaps(b) for place, b in enumerate(taken) if place != index)):
                taken.append(box)
                break
            text.remove()

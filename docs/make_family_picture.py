"""Makes docs/family_tree.png: one slice of the demo's scan by every learnt method whose weights come with the package.

python docs/make_family_picture.py
"""

from __future__ import annotations

import warnings
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

from pipelines import brain_scan, scan_arrays
from pipelines.evaluation.metrics import measures
from priors import UnlikeTrainingWarning, reconstruct
from priors.registry import METHODS, weights_of

SLICE, GAIN, COLUMNS = 1, 10, 6
HEAD = slice(6, 154), slice(16, 144)  # rows and columns that are shown
CLASSICAL = ("zero_filled", "l1_wavelet")


def with_weights() -> list[str]:
    """Methods whose weights come with the package."""
    found = []
    for name in METHODS:
        try:
            weights_of(name, "")
        except ValueError:  # none come with it
            continue
        found.append(name)
    return found


def main() -> None:
    matplotlib.use("Agg")
    warnings.simplefilter("ignore", UnlikeTrainingWarning)
    kspace, mask, truth = scan_arrays(brain_scan())
    reference = (truth[SLICE] / truth[SLICE].max()).astype(np.float32)
    tiles = {"truth": (reference, "")}
    for name in (*CLASSICAL, *with_weights()):
        image = np.abs(reconstruct(kspace[SLICE], mask, name)).astype(np.float64)
        image *= (image * reference).sum() / np.square(image).sum()
        tiles[name] = image, f"{measures(image.astype(np.float32), reference)['psnr_object']:.1f} dB"
        print(name, tiles[name][1], flush=True)
    white = float(np.percentile(reference, 99.8))
    rows = 2 * -(-len(tiles) // COLUMNS)
    figure, axes = plt.subplots(rows, COLUMNS, figsize=(10, 1.05 * rows * 10 / COLUMNS), dpi=100, facecolor="black")
    for one in axes.flat:
        one.set_axis_off()
    for index, (name, (image, text)) in enumerate(tiles.items()):
        row, column = divmod(index, COLUMNS)
        top, bottom = axes[2 * row, column], axes[2 * row + 1, column]
        top.set_title(f"{name}  {text}", color="white", fontsize=8, pad=2)
        top.imshow(image[HEAD], cmap="gray", vmin=0, vmax=white)
        if name == "truth":
            bottom.text(0.5, 0.5, f"below each: {GAIN} x error", color="white", ha="center", fontsize=8)
        else:
            bottom.imshow(np.abs(image - reference)[HEAD], cmap="gray", vmin=0, vmax=white / GAIN)
    figure.subplots_adjust(0, 0, 1, 0.97, 0.01, 0.12)
    figure.canvas.draw()
    Image.fromarray(np.asarray(figure.canvas.buffer_rgba())[..., 0]).save(  # it is grey
        Path(__file__).with_name("family_tree.png"), optimize=True
    )


if __name__ == "__main__":
    main()

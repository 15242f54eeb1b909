"""Makes docs/demo.png, the picture of the README, from the folder of `genrecon demo`.

genrecon demo -o genrecon-demo && python docs/make_demo_picture.py genrecon-demo
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

from pipelines import brain_scan, scan_arrays
from priors import reconstruct

SLICE, GAIN = 2, 10  # shown, counted from 1; what errors are multiplied by
ROWS, COLUMNS = slice(6, 154), slice(16, 144)  # about the head


def main() -> None:
    matplotlib.use("Agg")
    folder = Path(sys.argv[1])
    kspace, mask, truth = scan_arrays(brain_scan())
    with np.load(folder / "cases" / f"{SLICE}.npz") as case:
        reference = case["reference"]
    images = {"zero-filled": np.abs(reconstruct(kspace[SLICE - 1], mask, "zero_filled")) / truth.max()}
    for name in ("cg_sense", "l1_wavelet", "svd_wkgm"):
        with np.load(folder / "images" / f"{SLICE}_{name}.npz") as found:
            images[name] = found["image"]
    white = float(np.percentile(reference, 99.8))
    figure, axes = plt.subplots(2, 1 + len(images), figsize=(10, 4.85), dpi=100, facecolor="black")
    axes[0, 0].set_title("truth", color="white", fontsize=10)
    axes[0, 0].imshow(reference[ROWS, COLUMNS], cmap="gray", vmin=0, vmax=white)
    for (name, image), (top, bottom) in zip(images.items(), axes.T[1:], strict=True):
        top.set_title(name, color="white", fontsize=10)
        top.imshow(image[ROWS, COLUMNS], cmap="gray", vmin=0, vmax=white)
        error = np.abs(image - reference)
        bottom.imshow(error[ROWS, COLUMNS], cmap="gray", vmin=0, vmax=white / GAIN)
    axes[1, 0].text(0.5, 0.5, f"{GAIN} x error", color="white", ha="center", transform=axes[1, 0].transAxes)
    for one in axes.flat:
        one.set_axis_off()
    figure.subplots_adjust(0, 0, 1, 0.94, 0.01, 0.01)
    figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba())[..., 0]  # it is grey
    Image.fromarray(pixels).save(Path(__file__).with_name("demo.png"), optimize=True)


if __name__ == "__main__":
    main()

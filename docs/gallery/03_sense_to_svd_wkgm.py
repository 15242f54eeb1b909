# %% [markdown]
# # From SENSE to svd-WKGM on one slice
#
# One slice, eight coils, every fourth line: four reconstructions of the same data, from no assumption to a learnt
# one. The truth is known, so their errors can be shown.

# %%
import time
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np

from pipelines import BRAIN_SCAN, brain_scan, scan_arrays
from priors import reconstruct

scan = brain_scan(replace(BRAIN_SCAN, matrix=(112, 112, 1), slices=1))
(kspace,), mask, (truth,) = scan_arrays(scan)
print(f"k-space {kspace.shape}, {mask.mean():.0%} measured; the noise has standard deviation 1")

# %% [markdown]
# ## The methods
#
# - `zero_filled`: missing lines are zero. The image folds over itself, and is blurred.
# - `cg_sense`: the image that fits best to the measured lines, seen through the coil maps. Nothing is assumed of
#   the image,   so noise grows where the coils tell the folded pixels apart badly.
# - `l1_wavelet`: of the images that fit, one with few wavelet coefficients. Less noise, and fine texture goes
#   with it.
# - `svd_wkgm`: of the images that fit, one that a network takes for likely, which has learnt the weighted k-space
#   of brains.

# %%
images, seconds = {}, {}
for method in ("zero_filled", "cg_sense", "l1_wavelet", "svd_wkgm"):
    begin = time.perf_counter()
    images[method] = np.abs(reconstruct(kspace, mask, method))
    seconds[method] = time.perf_counter() - begin


def psnr(image: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB."""
    return float(-10 * np.log10(np.mean((image - truth) ** 2) / truth.max() ** 2))


for method, image in images.items():
    print(f"{method:12} {psnr(image):5.1f} dB  {seconds[method]:5.1f} s")
assert psnr(images["svd_wkgm"]) > psnr(images["cg_sense"]) > psnr(images["zero_filled"])

# %% [markdown]
# ## Images and errors
#
# Look at the errors, not only at the images: an error that looks like anatomy is worse than one that looks like
# noise, because nobody would notice it. PSNR counts both alike.

# %%
white = np.percentile(truth, 99.8)
figure, axes = plt.subplots(2, 5, figsize=(11, 4.7))
axes[0, 0].imshow(truth, cmap="gray", vmin=0, vmax=white)
axes[0, 0].set_title("truth")
axes[1, 0].text(0.5, 0.5, "10 x error", ha="center", transform=axes[1, 0].transAxes)
for (method, image), (top, bottom) in zip(images.items(), axes.T[1:], strict=True):
    top.imshow(image, cmap="gray", vmin=0, vmax=white)
    top.set_title(f"{method}\n{psnr(image):.1f} dB")
    bottom.imshow(np.abs(image - truth), cmap="gray", vmin=0, vmax=white / 10)
for one in axes.flat:
    one.set_axis_off()
plt.show()

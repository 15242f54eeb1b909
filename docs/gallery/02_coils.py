# %% [markdown]
# # Coils: compression and ESPIRiT maps
#
# A receive array sees one object through many coils. Two steps come before every parallel reconstruction: fewer
# virtual coils, which saves time, and a map of what each coil sees, which is what undoes the aliasing.

# %%
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import torch

from pipelines import BRAIN_SCAN, brain_scan, scan_arrays
from priors import compress_coils, espirit_maps, ifft2c, reconstruct

scan = brain_scan(replace(BRAIN_SCAN, matrix=(128, 128, 1), slices=1, coils=12, acceleration=2))
(kspace,), mask, (truth,) = scan_arrays(scan)
print(f"{len(kspace)} coils, {mask.mean():.0%} of k-space measured")


def images_of(coil_kspace: np.ndarray) -> np.ndarray:
    """Images of k-space by the centred orthonormal inverse Fourier transform."""
    return ifft2c(torch.from_numpy(coil_kspace)).numpy()


# %% [markdown]
# ## Fewer coils
#
# Neighbouring coils see nearly the same, so the data of 12 coils lie close to a space of fewer dimensions. The
# singular values of the calibration lines show it. We keep the axes that hold the most energy; the gadget keeps those
# whose signal stands out of the noise. White noise stays white, because the axes are orthonormal.

# %%
energy = [np.linalg.norm(one) ** 2 for one in compress_coils(kspace, 12, mask)]
kept = np.cumsum(energy) / np.sum(energy)
virtual = compress_coils(kspace, 8, mask)

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), width_ratios=(1, 1.6))
left.bar(np.arange(1, 13), kept)
left.set(xlabel="virtual coils", ylabel="energy kept", ylim=(0, 1.02))
right.imshow(np.hstack(list(np.abs(images_of(virtual)[:4]))), cmap="gray")
right.set_title("images of the first four virtual coils (aliased)")
right.set_axis_off()
plt.show()
print(f"8 virtual coils keep {kept[7]:.2%} of the energy")

# %% [markdown]
# ## Maps
#
# ESPIRiT finds the maps in the fully sampled centre of k-space. Each pixel gets one complex number a coil, and
# the sum of their squares is 1. `crop=0.9` cuts the maps where nothing was seen (of the chains, `cg_sense` crops, at
# 0.5; the others do not). Look for smooth magnitude and smooth phase inside the head; a map that is noisy or has
# holes spoils all that follows.

# %%
(maps,) = espirit_maps(virtual, mask, sets=1, crop=0.9)
figure, axes = plt.subplots(2, 4, figsize=(9, 4.7))
for coil, (top, bottom) in enumerate(axes.T):
    top.imshow(np.abs(maps[coil]), cmap="gray", vmin=0, vmax=1)
    top.set_title(f"virtual coil {coil + 1}")
    bottom.imshow(np.angle(maps[coil]), cmap="twilight", vmin=-np.pi, vmax=np.pi)
for one in axes.flat:
    one.set_axis_off()
figure.suptitle("magnitude (top) and phase (bottom) of the coil maps")
plt.show()

# %% [markdown]
# ## Do the maps explain the data?
#
# If the maps are right, the coil images of the calibration lines are map times one image. Take that image out,
# and little should be left. (Not nothing: these images are blurred, and the map times a blurred image is not
# quite their blurred product, which shows at edges.) A coil that moved, or a wrong map, leaves tens of percent.
# It is the test to make when a reconstruction looks wrong.

# %%
centre = np.zeros_like(mask)
centre[52:76] = True
window = np.hanning(26)[1:-1]
low = np.zeros_like(virtual)
low[:, 52:76, 52:76] = virtual[:, 52:76, 52:76] * window[:, None] * window
coil_images = images_of(low)
(full,) = espirit_maps(virtual, mask, sets=1)
combined = (full.conj() * coil_images).sum(0)
left_over = np.linalg.norm(coil_images - full * combined, axis=0)
print(f"the maps leave {np.linalg.norm(left_over) / np.linalg.norm(coil_images):.1%} of the calibration signal")

sense = np.abs(reconstruct(virtual, mask, "cg_sense"))
figure, axes = plt.subplots(1, 3, figsize=(9, 3.3))
white = np.linalg.norm(coil_images, axis=0).max()
for one, picture, title, top in zip(
    axes,
    (np.linalg.norm(coil_images, axis=0), 20 * left_over, sense),
    ("calibration lines alone", "what the maps leave, x 20", "SENSE with eight virtual coils"),
    (white, white, np.percentile(sense, 99.8)),
    strict=True,
):
    one.imshow(picture, cmap="gray", vmin=0, vmax=top)
    one.set_title(title)
    one.set_axis_off()
plt.show()

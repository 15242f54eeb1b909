# %% [markdown]
# # Training on ten slices
#
# A prior learns from fully sampled images: it is shown noisy crops of them, and learns to take the noise off.
# Here a tiny network learns from ten slices in under a minute. It will not be good. What matters is that the
# steps are the same for a thousand slices and a night on a GPU.

# %%
import json
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from pipelines import BRAIN_SCAN, brain_scan, scan_arrays
from priors import load_prior, reconstruct

folder = Path(tempfile.mkdtemp())

# %% [markdown]
# ## Images
#
# Complex images (slice, y, x), as a scanner makes them: with phase, and with a little noise. We have five slices
# of a head. The middle one is put aside: a prior must be tested on what it has not seen. The others and their
# mirror images make eight, and two quarter turns ten. (All are of one head; train yours on many.)

# %%
full = replace(BRAIN_SCAN, matrix=(96, 96, 1), slices=5, coils=1, sampling="full", acceleration=1, noise_scan=False)
kspace = scan_arrays(brain_scan(replace(full, coil_maps="random", noise_level=0.002)))[0][:, 0]
images = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(kspace, axes=(1, 2)), norm="ortho"), axes=(1, 2))
seen = images[[0, 1, 3, 4]]
training = np.concatenate([seen, seen[:, :, ::-1], np.rot90(seen[1:3], axes=(1, 2))]).astype(np.complex64)
np.save(folder / "images.npy", training)
print(f"{len(training)} images of {training.shape[1:]}")

figure, axes = plt.subplots(1, 5, figsize=(10, 2.2))
for one, image in zip(axes, training[:5], strict=True):
    one.imshow(np.abs(image), cmap="gray")
    one.set_axis_off()
plt.show()

# %% [markdown]
# ## Train
#
# In a terminal:
#
# ```bash
# genrecon train wkgm --data images.npy --no-denoise --base-channels 8 --multipliers 1,2 \
#     --steps 150 --warm-up 20 --learning-rate 0.002 --crop 64 --no-bf16
# ```
#
# `genrecon train wkgm --list` names all settings. The same command goes on where it was interrupted.

# %%
weights = folder / "tiny.safetensors"
options = "--no-denoise --base-channels 8 --multipliers 1,2 --steps 150 --warm-up 20 --learning-rate 0.002 --crop 64"
command = [
    sys.executable,
    "-m",
    "pipelines.cli",
    "train",
    "wkgm",
    "--data",
    str(folder / "images.npy"),
    "-o",
    str(weights),
]
subprocess.run([*command, *options.split(), "--no-bf16"], check=True, capture_output=True)
card = json.loads(weights.with_suffix(".json").read_text())
print(
    f"{weights.name}: {weights.stat().st_size / 1e6:.2f} MB, {card['steps']} steps; learnt from {card['training_data']}"
)

plt.figure(figsize=(7, 3.6))
plt.imshow(plt.imread(weights.with_suffix(".png")))
plt.axis("off")
plt.show()

# %% [markdown]
# ## Use it
#
# The file is a method's prior like any other. The card next to it says what the network learnt from; keep both
# together. We reconstruct the slice that was put aside.

# %%
scan = brain_scan(replace(BRAIN_SCAN, matrix=(96, 96, 1), slices=1))
(measured,), mask, (truth,) = scan_arrays(scan)
images_found = {
    "cg_sense": np.abs(reconstruct(measured, mask, "cg_sense")),
    "tiny prior": np.abs(reconstruct(measured, mask, load_prior(weights))),
}


def psnr(image: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB."""
    return float(-10 * np.log10(np.mean((image - truth) ** 2) / truth.max() ** 2))


figure, axes = plt.subplots(1, 3, figsize=(9, 3.3))
white = np.percentile(truth, 99.8)
for one, (name, image) in zip(axes, {"truth": truth, **images_found}.items(), strict=True):
    one.imshow(image, cmap="gray", vmin=0, vmax=white)
    one.set_title(name if name == "truth" else f"{name}, {psnr(image):.1f} dB")
    one.set_axis_off()
plt.show()
for name, image in images_found.items():
    print(f"{name:10} {psnr(image):.2f} dB")

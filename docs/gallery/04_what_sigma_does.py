# %% [markdown]
# # What sigma does
#
# The prior of `wkgm` is a denoiser: shown an array and told how much noise is in it (sigma), it returns its best
# estimate of the array without noise. A reconstruction asks it many times, with a sigma that falls from large to
# small. Here we ask it at five levels, without any measurement, and see what it knows.

# %%
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import torch

from pipelines import BRAIN_SCAN, brain_scan, scan_arrays
from priors import fft2c, load_prior

prior = load_prior("wkgm")
print(f"sigma from {prior.sigma_levels.lowest:.2g} to {prior.sigma_levels.highest:.2g}")

# %% [markdown]
# ## The domain
#
# A prior sees images of maximum 1 in a domain of its own. That of `wkgm` is weighted k-space: each sample of
# k-space is multiplied by a weight that grows with its frequency, so that strong low and weak high frequencies
# become alike. `encode` goes there, `decode` comes back. The shape is (batch, array, y, x).

# %%
(truth,) = scan_arrays(brain_scan(replace(BRAIN_SCAN, matrix=(112, 112, 1), slices=1)))[2]
image = torch.from_numpy(truth / truth.max()).to(torch.complex64)[None, None]
clean = prior.domain.encode(image)
generator = torch.Generator().manual_seed(0)
noise = np.sqrt(2) * torch.randn(clean.shape, dtype=torch.complex64, generator=generator)  # 1 in each part

figure, axes = plt.subplots(1, 2, figsize=(7, 3.5))
for one, array, title in zip(axes, (fft2c(image), clean), ("k-space", "weighted k-space"), strict=True):
    one.imshow(array[0, 0].abs() ** 0.4, cmap="gray")
    one.set_title(title)
    one.set_axis_off()
plt.show()

# %% [markdown]
# ## Five levels
#
# Top: the image with noise. Bottom: what the prior makes of it. At a small sigma it takes off a little noise and
# keeps all detail. At a larger one the data say less, and the prior keeps what it is sure of: outline and large
# structures. At 0.4 nothing can be known, and it says so: grey. It must not invent a brain there. A
# reconstruction begins at the right; each step to the left adds detail, which the measured samples correct at
# once.

# %%
levels = (0.005, 0.015, 0.04, 0.12, 0.4)
figure, axes = plt.subplots(2, 5, figsize=(11, 4.7))
print("   sigma   error of noisy  error of denoised")
for sigma, (top, bottom) in zip(levels, axes.T, strict=True):
    noisy = clean + sigma * noise
    with torch.inference_mode():
        denoised = prior.denoise(noisy, sigma)
    before, after = (float((array - clean).norm() / clean.norm()) for array in (noisy, denoised))
    print(f"{sigma:8.3f} {before:15.2f} {after:15.2f}")
    assert after < before
    top.set_title(f"sigma {sigma:g}")
    for one, array in ((top, noisy), (bottom, denoised)):
        one.imshow(prior.domain.decode(array, image)[0, 0].abs(), cmap="gray", vmin=0, vmax=0.8)
        one.set_axis_off()
plt.show()

# %% [markdown]
# ## Where it helps
#
# The error at each frequency, before and after, at sigma 0.04. Before, it is the noise, alike at all frequencies.
# After, it is smaller everywhere, and most at high frequencies, where the image is weaker than the noise. Another
# prior has another curve: it is a fair way to compare two.

# %%
sigma = 0.04
noisy = clean + sigma * noise
with torch.inference_mode():
    denoised = prior.denoise(noisy, sigma)
size = image.shape[-1]
y, x = np.mgrid[:size, :size] - size // 2
ring = np.hypot(y, x).astype(int).ravel()


def by_frequency(array: torch.Tensor) -> np.ndarray:
    """Root mean square of the samples in rings of k-space."""
    power = np.bincount(ring, array[0, 0].abs().square().numpy().ravel()) / np.bincount(ring)
    return np.sqrt(power[1 : size // 2])


frequency = np.arange(1, size // 2) / size  # the weight of frequency 0 is 0
plt.figure(figsize=(6, 3.5))
plt.semilogy(frequency, by_frequency(clean), color="0.6", label="image")
plt.semilogy(frequency, by_frequency(noisy - clean), label="error before")
plt.semilogy(frequency, by_frequency(denoised - clean), label="error after")
plt.xlabel("frequency (cycles per pixel)")
plt.ylabel("weighted k-space")
plt.legend()
plt.show()

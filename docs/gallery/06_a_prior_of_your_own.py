# %% [markdown]
# # A prior of your own
#
# A prior is a class with one method, `denoise`. Everything else, coil maps, phase, scale, agreement with the
# data, samples, is done for it. The example lies in `docs/examples`, so that chains can use it too.

# %%
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pywt
import torch

import pipelines
from pipelines import BRAIN_SCAN, brain_scan, scan_arrays
from priors import Prior, SigmaLevels, load_prior, reconstruct

EXAMPLE = Path(pipelines.__file__).parents[1] / "docs" / "examples" / "smoothing_prior.py"
print(EXAMPLE.read_text())

# %% [markdown]
# ## Try it as a denoiser
#
# Before a prior reconstructs anything, look at what it does to noise. The Wiener filter takes noise off smooth
# parts and blurs edges: that is all it knows.

# %%
prior = load_prior(f"{EXAMPLE}:SmoothingPrior")
scan = brain_scan(replace(BRAIN_SCAN, matrix=(96, 96, 1), slices=1))
(kspace,), mask, (truth,) = scan_arrays(scan)
image = torch.from_numpy(truth / truth.max()).to(torch.complex64)[None, None]
noise = torch.randn(image.shape, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
figure, axes = plt.subplots(1, 3, figsize=(9, 3.3))
for one, sigma in zip(axes, (0.02, 0.1, 0.5), strict=True):
    denoised = prior.denoise(image + np.sqrt(2) * sigma * noise, sigma)
    one.imshow(denoised[0, 0].abs(), cmap="gray", vmin=0, vmax=0.8)
    one.set_title(f"denoised, sigma {sigma:g}")
    one.set_axis_off()
plt.show()

# %% [markdown]
# ## Reconstruct with it
#
# The prior takes the place of a method's name.

# %%
images = {
    "cg_sense": np.abs(reconstruct(kspace, mask, "cg_sense")),
    "SmoothingPrior": np.abs(reconstruct(kspace, mask, prior)),
}


def psnr(found: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB."""
    return float(-10 * np.log10(np.mean((found - truth) ** 2) / truth.max() ** 2))


# %% [markdown]
# ## Another one, in a few lines
#
# This one believes that images have few large wavelet coefficients: it shrinks all of them by the noise level.
# Any denoiser will do, a network of yours too; NumPy is fine.


# %%
class WaveletPrior(Prior):
    """Soft thresholding of wavelet coefficients, the mean over four shifts of their grid."""

    sigma_levels = SigmaLevels((1e-3, 1.0), continuous=True)

    def denoise(self, m: torch.Tensor, sigma: float | torch.Tensor) -> torch.Tensor:
        """Images (batch, array, y, x) of maximum 1, less white noise of level sigma in each part."""
        noisy, level, axes = m.numpy(), float(torch.as_tensor(sigma).max()), (-2, -1)
        found = np.zeros_like(noisy)
        for shift in ((0, 0), (1, 2), (2, 1), (3, 3)):
            shifted = np.roll(noisy, shift, axes)
            smooth, *details = pywt.wavedec2(shifted, "db4", "periodization", level=3, axes=axes)
            shrunk = [tuple(pywt.threshold(band, level) for band in bands) for bands in details]
            denoised = pywt.waverec2([smooth, *shrunk], "db4", "periodization", axes=axes)
            found += np.roll(denoised, [-pixels for pixels in shift], axes) / 4
        return torch.from_numpy(found).to(m.dtype)


images["WaveletPrior"] = np.abs(reconstruct(kspace, mask, WaveletPrior()))

figure, axes = plt.subplots(2, 3, figsize=(9, 6.2))
white = np.percentile(truth, 99.8)
for (name, found), (top, bottom) in zip(images.items(), axes.T, strict=True):
    top.imshow(found, cmap="gray", vmin=0, vmax=white)
    top.set_title(f"{name}, {psnr(found):.1f} dB")
    bottom.imshow(np.abs(found - truth), cmap="gray", vmin=0, vmax=white / 10)
    bottom.set_title("10 x error")
    print(f"{name:15} {psnr(found):.2f} dB")
for one in axes.flat:
    one.set_axis_off()
plt.show()
assert psnr(images["WaveletPrior"]) > max(psnr(images["SmoothingPrior"]), psnr(images["cg_sense"]))

# %% [markdown]
# ## What to learn from it
#
# A prior that is poor does harm: `SmoothingPrior` is worse than no prior at all, and its error is not noise but
# folded edges, the kind that is mistaken for anatomy. The wavelets help, if little. So test a prior of yours
# against `cg_sense` before anything else, on scans that it has not seen, and look at the errors.
#
# In a chain: `--set generative_recon.method=custom --set
# generative_recon.prior=smoothing_prior.py:SmoothingPrior`. How to make it a method of its own, with weights and
# training: *Add a prior* in the documentation.

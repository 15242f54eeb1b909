# %% [markdown]
# # Posterior samples, and how to read them
#
# Undersampled data do not decide the image: many images agree with them. A generative prior can draw several of
# those. Where they agree, the samples are sure, which is not the same as right: all come from one prior.
# Where they differ, the image is a guess.

# %%
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np

from pipelines import BRAIN_SCAN, brain_scan, scan_arrays
from priors import posterior_samples, reconstruct

scan = brain_scan(replace(BRAIN_SCAN, matrix=(80, 80, 1), slices=1, coils=4, calibration_lines=16, noise_level=0.01))
(kspace,), mask, (truth,) = scan_arrays(scan)

# %% [markdown]
# ## Draw
#
# Every sample begins with other noise, and ends at another image that agrees with the same data. (Ten steps keep
# this example short; by default there are more.) In a chain, the property `generative_recon.samples` does the
# same, and hands out mean and standard deviation as two series.

# %%
samples = np.abs(posterior_samples(kspace, mask, "svd_wkgm", samples=6, steps=10, seed=0))
mean, deviation = samples.mean(0), samples.std(0, ddof=1)
print(f"{len(samples)} samples of {samples.shape[1:]}")

white = np.percentile(truth, 99.8)
figure, axes = plt.subplots(1, 4, figsize=(10, 2.8))
for number, one in enumerate(axes[:3]):
    one.imshow(samples[number], cmap="gray", vmin=0, vmax=white)
    one.set_title(f"sample {number + 1}")
axes[3].imshow(np.abs(samples[0] - samples[1]), cmap="gray", vmin=0, vmax=white / 10)
axes[3].set_title("10 x |sample 1 - 2|")
for one in axes:
    one.set_axis_off()
plt.show()

# %% [markdown]
# ## Mean, standard deviation, and the true error
#
# The mean of the samples is a better estimate than any one of them: what they do not agree on averages out. The
# standard deviation says *where* to be careful. It does not say how large the error is: it knows nothing of a
# prior that is wrong, or of coil maps that are.

# %%
error = np.abs(mean - truth)
figure, axes = plt.subplots(1, 3, figsize=(9, 3.3))
for one, picture, title, top in zip(
    axes,
    (mean, deviation, error),
    ("mean", "standard deviation", "true error"),
    (white, white / 20, white / 20),
    strict=True,
):
    shown = one.imshow(picture, cmap="gray" if title == "mean" else "viridis", vmin=0, vmax=top)
    one.set_title(title)
    one.set_axis_off()
figure.colorbar(shown, ax=axes[1:], shrink=0.8, label="standard deviation and error, one scale")
plt.show()


def rms_error(image: np.ndarray) -> float:
    """Root mean square error within the head, in percent of the maximum."""
    head = truth > 0.05 * truth.max()
    return 100 * float(np.sqrt(np.mean((image - truth)[head] ** 2))) / float(truth.max())


singles = [rms_error(one) for one in samples]
print(f"error of a sample {np.mean(singles):.2f} %, of their mean {rms_error(mean):.2f} %")
print(f"standard deviation, root mean square: {100 * np.sqrt(np.mean(deviation**2)) / truth.max():.2f} %")
assert rms_error(mean) < np.mean(singles)

# %% [markdown]
# ## How far to trust it
#
# Sort the pixels by the standard deviation, and look at the true error in each tenth of them. If the error rises
# from left to right, the standard deviation points at the right places. The dashed line is where both are equal:
# points above it mean that the samples are surer than they should be.

# %%
head = truth > 0.05 * truth.max()
order = np.argsort(deviation[head])
predicted = [np.sqrt(np.mean(deviation[head][part] ** 2)) for part in np.array_split(order, 10)]
found = [np.sqrt(np.mean(error[head][part] ** 2)) for part in np.array_split(order, 10)]
plt.figure(figsize=(4.5, 4))
plt.plot(predicted, found, "o-")
plt.plot([0, max(predicted)], [0, max(predicted)], "--", color="0.5")
plt.xlabel("standard deviation of the samples")
plt.ylabel("true error")
plt.show()
print(f"error / standard deviation: {np.sqrt(np.mean(np.square(found)) / np.mean(np.square(predicted))):.1f}")
assert found[-1] > found[0]

# %% [markdown]
# One image, without noise that is added on the way, is the job of `reconstruct`:

# %%
print(f"reconstruct: {rms_error(np.abs(reconstruct(kspace, mask, 'svd_wkgm', steps=10))):.2f} %")

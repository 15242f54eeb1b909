# %% [markdown]
# # Benchmark and report
#
# Which method is best for *your* scans? Take fully sampled ones, undersample them here, reconstruct them by
# several methods, and compare with the whole. `genrecon benchmark` does that, and writes one page to look at.

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

folder = Path(tempfile.mkdtemp())

# %% [markdown]
# ## A fully sampled scan
#
# Raw files (.h5) or arrays do. Noise belongs into it: without noise, every method that knows nothing of noise
# looks better than it is.

# %%
full = replace(BRAIN_SCAN, matrix=(96, 96, 1), slices=1, sampling="full", acceleration=1)
kspace, _, _ = scan_arrays(brain_scan(full))
np.save(folder / "brain.npy", kspace)
print(f"k-space (slice, coil, y, x): {kspace.shape}")

# %% [markdown]
# ## Run
#
# In a terminal:
#
# ```bash
# genrecon benchmark brain.npy --kspace --pattern uniform:2 --pattern uniform:4 --method zero_filled --method cg_sense \
#     --method grappa --method l1_wavelet -o benchmark
# ```
#
# A method may have properties: `--method "svd_wkgm samples=4"`. It is left out here, as it takes longer. A run
# that was interrupted goes on with the same command.

# %%
methods = ["zero_filled", "cg_sense", "grappa", "l1_wavelet"]
command = [sys.executable, "-m", "pipelines.cli", "benchmark", folder / "brain.npy", "--kspace", "--repeats", "0"]
command += ["--pattern", "uniform:2", "--pattern", "uniform:4", "-o", folder / "benchmark"]
command += [word for method in methods for word in ("--method", method)]
ran = subprocess.run([str(word) for word in command], check=True, capture_output=True, text=True)
print(ran.stdout.replace(str(folder), "..."))

# %% [markdown]
# ## Look
#
# `report.html` has images, errors and the most detailed region enlarged; it is one file that can be sent on. The
# numbers are in `results.csv` and `results.json`. Two cautions. The reference is the noisy scan itself, so a
# method that keeps the measured noise (grappa) gains, and one that takes it out (l1_wavelet) loses. And PSNR and
# SSIM do not see what a radiologist sees: look at the errors too.

# %%
results = json.loads((folder / "benchmark" / "results.json").read_text())
patterns = {case["case"]: f"{case['mask']} ({case['acceleration']:.1f}-fold)" for case in results["cases"]}
figure, axes = plt.subplots(1, 2, figsize=(9, 3.4))
places = np.arange(len(methods))
for shift, (case, label) in zip((-0.2, 0.2), patterns.items(), strict=True):
    rows = {row["method"]: row for row in results["rows"] if row["case"] == case}
    for one, key in zip(axes, ("psnr", "ssim"), strict=True):
        one.bar(places + shift, [rows[method][key] for method in methods], 0.4, label=label)
for one, title in zip(axes, ("PSNR (dB)", "SSIM"), strict=True):
    one.set_xticks(places, methods)
    one.set_title(title)
axes[0].set_ylim(15)
axes[1].set_ylim(0.4)
axes[1].legend(loc="lower right")
plt.show()

# %%
shown = list((folder / "benchmark" / "report").glob("*_error.png"))
assert (folder / "benchmark" / "report.html").is_file() and len(shown) == len(methods) * len(patterns)
figure, axes = plt.subplots(1, len(methods), figsize=(10, 2.9))
for one, method in zip(axes, methods, strict=True):
    one.imshow(plt.imread(next(path for path in sorted(shown, reverse=True) if method in path.name)))
    one.set_title(f"{method}, error x 5")
    one.set_axis_off()
plt.show()

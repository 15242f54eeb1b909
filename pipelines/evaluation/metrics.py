"""Image quality against a reference: PSNR, SSIM, NRMSE, HFEN."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_laplace
from skimage.metrics import structural_similarity

METRICS = ("psnr", "ssim", "nrmse", "hfen")
OBJECT_METRICS = tuple(f"{name}_object" for name in METRICS)
OBJECT_THRESHOLD = 0.05  # of the reference's maximum: where it is above, there is the object

Array = NDArray[Any]


def psnr(image: Array, reference: Array) -> float:
    """PSNR in dB to a maximum of 1, of arrays of one shape; 200 dB where they are equal."""
    return float(-10 * np.log10(max(np.square(image - reference, dtype=np.float64).mean(), 1e-20)))


def measures(image: Array, reference: Array) -> dict[str, float]:
    """PSNR (dB), SSIM, NRMSE and HFEN of an image, over all of it and (NAME_object) where the object is.

    Parameters
    ----------
    image, reference : float32 (y, x); the reference has maximum 1

    Notes
    -----
    HFEN: norm of the difference after a Laplacian of Gaussian (15 x 15, sigma 1.5 pixels), relative to the reference's
    (Ravishankar and Bresler, IEEE TMI 2011).
    """
    image, reference = image.astype(np.float32), reference.astype(np.float32)
    difference, inside = image - reference, reference > OBJECT_THRESHOLD
    ssim, ssim_map = structural_similarity(reference, image, data_range=1.0, full=True)
    edges, reference_edges = (gaussian_laplace(one, 1.5, truncate=7 / 1.5) for one in (difference, reference))
    return {
        "psnr": psnr(image, reference),
        "ssim": float(ssim),
        "nrmse": _relative_norm(difference, reference),
        "hfen": _relative_norm(edges, reference_edges),
        "psnr_object": psnr(image[inside], reference[inside]),
        "ssim_object": float(ssim_map[inside].mean()),
        "nrmse_object": _relative_norm(difference[inside], reference[inside]),
        "hfen_object": _relative_norm(edges[inside], reference_edges[inside]),
    }


def _relative_norm(difference: Array, reference: Array) -> float:
    return float(np.linalg.norm(difference) / np.linalg.norm(reference))

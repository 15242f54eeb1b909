"""A brain-like phantom of ellipsoids."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

ELLIPSOIDS = np.array(
    [
        # intensity, semi-axes x y z, centre x y z (half fields of view), angle in the x-y plane (degrees)
        [0.70, 0.70, 0.93, 0.93, 0.00, 0.00, 0.00, 0],  # scalp
        [-0.62, 0.66, 0.88, 0.89, 0.00, 0.00, 0.00, 0],  # skull
        [0.47, 0.62, 0.83, 0.84, 0.00, 0.01, 0.00, 0],  # grey matter
        [0.17, 0.49, 0.68, 0.62, 0.00, 0.02, 0.05, 0],  # white matter
        [-0.45, 0.10, 0.30, 0.34, -0.15, -0.06, 0.08, 14],  # left ventricle
        [-0.45, 0.09, 0.27, 0.30, 0.15, -0.04, 0.10, -14],  # right ventricle
        [-0.12, 0.11, 0.14, 0.20, -0.22, 0.18, -0.10, 0],  # left basal ganglia
        [-0.12, 0.11, 0.14, 0.20, 0.22, 0.18, -0.10, 0],  # right basal ganglia
        [-0.30, 0.03, 0.10, 0.12, 0.00, 0.28, -0.05, 0],  # third ventricle
        [0.12, 0.38, 0.20, 0.30, 0.00, 0.52, -0.50, 0],  # cerebellum
        [0.24, 0.07, 0.05, 0.10, 0.33, -0.36, 0.12, 30],  # lesion
        [0.20, 0.03, 0.03, 0.60, -0.30, -0.40, 0.00, 0],  # small round structures, to see resolution
        [0.20, 0.02, 0.02, 0.60, -0.22, -0.48, 0.00, 0],
        [0.20, 0.012, 0.012, 0.60, -0.16, -0.53, 0.00, 0],
        [0.25, 0.10, 0.09, 0.15, -0.24, -0.66, -0.42, 0],  # left eye
        [0.25, 0.10, 0.09, 0.15, 0.24, -0.66, -0.42, 0],  # right eye
    ]
)


def phantom(y: NDArray[np.float64], x: NDArray[np.float64], z: float) -> NDArray[np.float32]:
    """Draw one plane of a brain-like phantom of ellipsoids, after Shepp and Logan.

    Parameters
    ----------
    y, x, z
        Coordinates in half fields of view, rows y (points), columns x (points) and the plane z.

    Returns
    -------
    float32 (y, x), the sum of the intensities of the ellipsoids a point lies in, 0 to 1.
    """
    image = np.zeros((y.size, x.size), np.float32)
    for intensity, a, b, c, x0, y0, z0, angle in ELLIPSOIDS:
        # A plane cuts an ellipsoid in an ellipse, its semi-axes shrunk with the distance from the centre.
        shrink = 1 - ((z - z0) / c) ** 2
        if shrink <= 0:
            continue
        cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        along = (x - x0) * cosine + (y[:, None] - y0) * sine
        across = (y[:, None] - y0) * cosine - (x - x0) * sine
        image[(along / a) ** 2 + (across / b) ** 2 <= shrink] += intensity
    return image

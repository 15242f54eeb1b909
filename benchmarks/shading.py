"""Surface-coil shading before and after its correction: `python -m benchmarks.shading`.

Standard deviation of the logarithm of the shading in the object, that is image over truth where the truth has signal:
0 is none, 0.5 a factor of about 1.6 up and down. Coils are loops in three dimensions, by the law of Biot and Savart.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from pipelines.simulation.phantom import phantom
from priors.signal.shading import fit_shading

Field = NDArray[np.float64]


def loops(centres: Field, radius: float, size: int) -> NDArray[np.complex128]:
    """Transverse field (coil, y, x) of loops that face the axis of the magnet, in half fields of view."""
    points = (np.arange(size) - size // 2) / (size / 2)
    y, x = np.meshgrid(points, points, indexing="ij")
    place = np.stack([x, y, np.zeros_like(x)], axis=-1)
    fields = []
    for centre in centres:
        normal = np.array([*centre[:2], 0.0]) / np.hypot(*centre[:2])
        along = np.array([-normal[1], normal[0], 0.0])
        field = np.zeros_like(place)
        for angle in np.linspace(0, 2 * np.pi, 32, endpoint=False):
            from_centre = radius * (np.cos(angle) * along + np.sin(angle) * np.array([0.0, 0.0, 1.0]))
            current = radius * (-np.sin(angle) * along + np.cos(angle) * np.array([0.0, 0.0, 1.0]))
            distance = place - centre - from_centre
            field += np.cross(current, distance) / np.linalg.norm(distance, axis=-1, keepdims=True) ** 3
        fields.append(field[..., 0] - 1j * field[..., 1])
    return np.stack(fields)


def layouts(size: int) -> dict[str, NDArray[np.complex128]]:
    """Sensitivities (coil, y, x) by the name of their layout; the volume coil has none."""

    def around(count: int, distance: float) -> Field:
        angle = 2 * np.pi * np.arange(count) / count
        return np.stack([distance * np.cos(angle), distance * np.sin(angle), 0 * angle], axis=1)

    spine = np.stack([np.linspace(-0.75, 0.75, 4), np.full(4, 1.2), np.zeros(4)], axis=1)
    flat = np.ones((1, size, size)) * np.exp(1j * np.arange(8))[:, None, None]
    return {
        "no shading": flat,
        "ring of 16": loops(around(16, 1.25), 0.3, size),
        "row of 4 on one side": loops(spine, 0.35, size),
        "rows of 4 on two sides": loops(np.concatenate([spine, spine * [1, -1, 1]]), 0.35, size),
    }


def tissues(size: int) -> Field:
    """Patches of 12 tissues: a Voronoi diagram within an ellipse."""
    rng = np.random.default_rng(1)
    points = (np.arange(size) - size // 2) / (size / 2)
    y, x = np.meshgrid(points, points, indexing="ij")
    seeds = rng.uniform(-0.8, 0.8, (60, 2))
    nearest = ((y[..., None] - seeds[:, 0]) ** 2 + (x[..., None] - seeds[:, 1]) ** 2).argmin(-1)
    return np.where((x / 0.85) ** 2 + (y / 0.7) ** 2 < 1, rng.choice(np.linspace(0.3, 1, 12), 60)[nearest], 0.0)


def spread(shading: Field, inside: NDArray[np.bool_]) -> float:
    """Standard deviation of the logarithm of a shading in the object."""
    return float(np.log(shading[inside]).std())


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=160, help="matrix size")
    parser.add_argument("--noise", type=float, default=0.01, help="noise, of the mean signal")
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    size = arguments.size
    points = (np.arange(size) - size // 2) / (size / 2)
    objects = {"phantom": phantom(points, points, 0.0).astype(np.float64), "patches": tissues(size)}
    table = Table(title="standard deviation of log shading, before and after")
    for heading in ("object", "coils", "before", "after", "gain"):
        table.add_column(heading)
    rng = np.random.default_rng(0)
    for name, drawn in objects.items():
        for layout, coils in layouts(size).items():
            shading = np.linalg.norm(coils, axis=0)
            inside = drawn > 0.1
            shading = shading / shading[inside].mean()
            noise = rng.standard_normal((2, size, size)) * arguments.noise / np.sqrt(2)
            image = (drawn * shading + noise[0] + 1j * noise[1]).astype(np.complex64)[None]
            field = fit_shading(torch.from_numpy(image))
            assert field is not None
            gain = field.gain(image.shape)[0].numpy()
            low, high = field.limits
            table.add_row(
                name, layout, f"{spread(shading, inside):.3f}", f"{spread(shading * gain, inside):.3f}",
                f"{low:.2f} to {high:.2f}",
            )  # fmt: skip
    Console(width=120).print(table)


if __name__ == "__main__":
    main()

"""Shading by surface coils, found in images whose shading is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.shading import spread, tissues
from pipelines.simulation.phantom import phantom
from priors.signal.shading import STRONGEST, fit_shading

SIZE = 128
POINTS = (np.arange(SIZE) - SIZE // 2) / (SIZE / 2)
Y, X = np.meshgrid(POINTS, POINTS, indexing="ij")
OBJECTS = {"phantom": phantom(POINTS, POINTS, 0.0).astype(float), "patches": tissues(SIZE)}
SHADINGS = {
    "linear": np.exp(0.6 * Y),
    "one side": 1 / ((Y - 1.4) ** 2 + X**2 + 0.3),
    "two sides": 1 / ((Y - 1.4) ** 2 + X**2 + 0.5) + 1 / ((Y + 1.4) ** 2 + X**2 + 0.5),
}


def noisy(image, level: float = 0.01) -> torch.Tensor:
    parts = np.random.default_rng(0).standard_normal((2, *image.shape)) * level / np.sqrt(2)
    return torch.from_numpy((image + parts[0] + 1j * parts[1]).astype(np.complex64))


@pytest.mark.parametrize("scale", [1.0, 1e-9, 1e12])
@pytest.mark.parametrize("drawn", OBJECTS.values(), ids=OBJECTS)
def test_nothing_is_added_where_there_is_no_shading(drawn, scale):
    image = noisy(drawn)[None] * scale
    field = fit_shading(image)
    assert spread(field.gain(image.shape)[0].numpy(), drawn > 0.1) < 0.01
    assert field.spread < 0.01


@pytest.mark.parametrize("shading", SHADINGS.values(), ids=SHADINGS)
@pytest.mark.parametrize("drawn", OBJECTS.values(), ids=OBJECTS)
def test_shading_falls_by_a_factor_of_five(drawn, shading):
    inside = drawn > 0.1
    shading = shading / shading[inside].mean()
    image = noisy(drawn * shading)[None]
    gain = fit_shading(image).gain(image.shape)[0].numpy()
    assert spread(shading * gain, inside) < spread(shading, inside) / 5
    assert abs(np.log(gain[inside]).mean()) < 0.1
    air = OBJECTS["phantom"] == 0
    assert gain[air].max() < 1.05 * gain[~air].max()  # air has what the rim of the object has, no more


def test_the_gain_is_bounded():
    drawn = OBJECTS["phantom"]
    image = noisy(drawn * np.exp(3 * Y) / 10)[None]
    field = fit_shading(image)
    assert field.limits[1] == pytest.approx(STRONGEST)
    gain = field.gain(image.shape)
    assert float(gain.min()) >= 1 / STRONGEST - 1e-5 and float(gain.max()) <= STRONGEST + 1e-4


def test_a_volume_is_one_problem():
    points = (np.arange(48) - 24) / 24
    planes = np.linspace(-0.6, 0.6, 16)
    drawn = np.stack([phantom(points, points, z) for z in planes]).astype(float)
    shading = np.exp(0.5 * planes[:, None, None] + 0.4 * points[:, None]) * np.ones_like(drawn)
    inside = drawn > 0.1
    flat, shaded = noisy(drawn), noisy(drawn * shading)
    assert spread(fit_shading(flat).gain(flat.shape).numpy(), inside) < 0.03
    gain = fit_shading(shaded).gain(shaded.shape).numpy()
    assert spread(shading * gain, inside) < spread(shading, inside) / 4


@pytest.mark.parametrize(
    "image",
    [
        torch.zeros(1, 64, 64),
        torch.full((1, 64, 64), torch.nan),
        torch.ones(1, 8, 8),
        torch.ones(1, 1, 1),
        torch.ones(10, 64, 64),
    ],
    ids=["empty", "not a number", "small", "a pixel", "few partitions"],
)
def test_images_that_tell_nothing(image):
    assert fit_shading(image) is None

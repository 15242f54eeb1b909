"""Noise of SENSE against the inverse of the whole system, and against replicas."""

from __future__ import annotations

import math

import pytest
import torch

from priors.classical.cg_sense import cg_sense
from priors.classical.sense_noise import combined_deviation, sense_covariance
from priors.signal.encoding import SenseOperator
from priors.signal.noise_maps import Replicas

SHAPE = (12, 8)
REGULAR = (torch.arange(12) % 3 == 0)[:, None].expand(SHAPE)
LINES = torch.tensor([1, 0, 1, 1, 0, 1, 1, 1, 0, 1, 0, 0], dtype=torch.bool)[:, None].expand(SHAPE)


def random(*shape, seed=0):
    return torch.randn(shape, dtype=torch.complex64, generator=torch.Generator().manual_seed(seed))


def maps_of(sets):
    maps = 0.3 * random(1, sets, 5, *SHAPE)
    maps[..., :3, :2] = 0
    maps[:, 1:, :, 5:] = 0
    return maps


def explicit(maps, mask, regularisation, deviation):
    """Covariance (set * pixel, set * pixel) from the matrices themselves."""
    _, sets, coils, height, width = maps.shape
    size = sets * height * width
    unit = torch.eye(size, dtype=torch.complex128).reshape(size, sets, height, width)
    operator = SenseOperator(
        maps.to(torch.complex128).expand(size, -1, -1, -1, -1), mask.double().expand(size, 1, *SHAPE)
    )
    forward = operator.forward(unit).reshape(size, -1).T
    normal = forward.mH @ forward + regularisation * torch.eye(size)
    inverse = torch.linalg.solve(normal, forward.mH)
    coloured = inverse * (mask * deviation).double().expand(1, coils, *SHAPE).flatten()
    return coloured @ coloured.mH


@pytest.mark.parametrize("sets", [1, 2])
@pytest.mark.parametrize(
    "mask",
    [REGULAR, LINES, LINES[:8, 0].expand(SHAPE), random(*SHAPE).real > -0.3],
    ids=["R=3", "lines", "columns", "2D"],
)
def test_is_that_of_the_inverse(sets, mask):
    maps, mask = maps_of(sets), mask[None, None]
    deviation = 0.5 + torch.rand(1, 1, *SHAPE, generator=torch.Generator().manual_seed(1))
    deviation[..., :2] = 0
    whole = explicit(maps, mask, 0.01, deviation)
    found = sense_covariance(maps, mask, 0.01, deviation)[0].flatten(2)
    for first in range(sets):
        for second in range(sets):
            block = whole.reshape(sets, 96, sets, 96)[first, :, second].diagonal().to(torch.complex64)
            torch.testing.assert_close(found[first, second], block, rtol=1e-4, atol=1e-6)


def test_regular_undersampling_of_plain_sense():
    """Pruessmann's formula: R times the diagonal of the inverse Gram matrix of the aliased pixels."""
    maps = 0.5 * random(1, 1, 5, *SHAPE)
    found = sense_covariance(maps, REGULAR[None, None], 0.0)[0, 0, 0]
    aliased = maps[0, 0, :, [2, 6, 10], 3].to(torch.complex128)
    expected = 3 * torch.linalg.inv(aliased.mH @ aliased).diagonal().real
    torch.testing.assert_close(found[[2, 6, 10], 3].real.double(), expected, rtol=1e-4, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize("sets", [1, 2])
def test_replicas_of_conjugate_gradients_agree(sets):
    maps, mask = maps_of(sets), LINES[None, None]
    data = 100 * random(1, 5, *SHAPE, seed=3)
    count = 1500

    def images(kspace):
        sets_images = cg_sense(kspace, maps.expand(len(kspace), -1, -1, -1, -1), mask, 0.01, 60, 1e-5)
        coils = (maps * sets_images[:, :, None]).sum(1)
        return torch.polar(torch.linalg.vector_norm(coils, dim=1), sets_images[:, 0].angle()), sets_images

    image, sets_image = images(data)
    replicas = Replicas(image[0])
    for replica in images(data + math.sqrt(2) * random(count, 5, *SHAPE, seed=4))[0]:
        replicas.add(replica)
    expected = combined_deviation(sense_covariance(maps, mask, 0.01), maps, sets_image)[0]
    inside = expected > 0
    assert not expected[:3, :2].any()
    difference = (replicas.deviation()[inside] / expected[inside] - 1).abs()
    assert float(difference.median()) < 0.02
    assert float(difference.quantile(0.95)) < 0.05
    assert replicas.ratio(expected) == pytest.approx(1, abs=0.01)


def test_fully_sampled_data_keep_their_noise():
    maps = maps_of(1)
    full = torch.ones(1, 1, *SHAPE, dtype=torch.bool)
    found = combined_deviation(sense_covariance(maps, full, 0.0), maps, maps[:, :, 0])
    assert torch.allclose(found[found > 0], torch.ones(()), atol=1e-4)


def test_refuses_a_negative_weight():
    with pytest.raises(ValueError, match="regularisation: -1 is negative"):
        sense_covariance(maps_of(1), REGULAR[None, None], -1)

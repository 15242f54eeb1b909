"""SENSE operator, conjugate gradients, proximal step and sample replacement."""

from __future__ import annotations

import numpy as np
import pytest
import sigpy.mri
import torch

from priors.signal.encoding import SenseOperator, conjugate_gradient, replace_samples, sense_proximal
from priors.signal.fourier import fft2c


def random_array(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.complex64, generator=torch.Generator().manual_seed(seed))


def random_mask(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(5)) < 0.6


def dense(operator: SenseOperator, shape: tuple[int, ...]) -> torch.Tensor:
    """Matrix of the forward operator for a batch of one."""
    units = torch.eye(int(np.prod(shape)), dtype=torch.complex64).reshape(-1, 1, *shape)
    return torch.stack([operator.forward(unit).flatten() for unit in units], dim=1)


@pytest.mark.parametrize("sets", [1, 2])
@pytest.mark.parametrize("shape", [(8, 10), (7, 9)])
@pytest.mark.parametrize("weighted", [False, True])
def test_adjoint_and_normal(sets: int, shape: tuple[int, int], weighted: bool) -> None:
    mask = random_mask(2, 1, *shape)
    weights = mask * torch.rand(2, 1, *shape, generator=torch.Generator().manual_seed(1)) if weighted else mask
    operator = SenseOperator(random_array(2, sets, 3, *shape), weights)
    image, kspace = random_array(2, sets, *shape, seed=1), random_array(2, 3, *shape, seed=2)
    left = torch.vdot(kspace.flatten(), operator.forward(image).flatten())
    right = torch.vdot(operator.adjoint(kspace).flatten(), image.flatten())
    torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-4)
    expected = operator.adjoint(operator.forward(image))
    torch.testing.assert_close(operator.normal(image), expected, rtol=1e-4, atol=1e-4)


def test_forward_agrees_with_sigpy() -> None:
    maps, mask, image = random_array(1, 1, 3, 8, 10), random_mask(1, 1, 8, 10), random_array(1, 1, 8, 10, seed=1)
    weights = mask[0].expand(3, -1, -1).numpy().astype(np.float32)
    expected = sigpy.mri.linop.Sense(maps[0, 0].numpy(), weights=weights) * image[0, 0].numpy()
    result = SenseOperator(maps, mask).forward(image)[0]
    torch.testing.assert_close(result, torch.from_numpy(expected), rtol=1e-4, atol=1e-5)


def test_largest_eigenvalue() -> None:
    operator = SenseOperator(random_array(1, 1, 3, 5, 6), random_mask(1, 1, 5, 6))
    expected = torch.linalg.matrix_norm(dense(operator, (1, 5, 6)), 2) ** 2
    torch.testing.assert_close(operator.largest_eigenvalue(200)[0], expected, rtol=1e-3, atol=0)
    empty = SenseOperator(torch.zeros(1, 1, 3, 5, 6, dtype=torch.complex64), random_mask(1, 1, 5, 6))
    assert empty.largest_eigenvalue().item() == 0


def test_conjugate_gradient_solves_each_batch_entry() -> None:
    matrix = random_array(3, 12, 12)
    matrix = matrix @ matrix.mH + torch.tensor([1.0, 50.0, 10.0])[:, None, None] * torch.eye(12)
    right_side = random_array(3, 12, seed=1)
    right_side[1] = 0

    def apply(vector: torch.Tensor) -> torch.Tensor:
        return (matrix @ vector.unsqueeze(-1)).squeeze(-1)

    expected = torch.linalg.solve(matrix, right_side)
    solution = conjugate_gradient(apply, right_side, iterations=60, tolerance=1e-6)
    torch.testing.assert_close(solution, expected, rtol=1e-3, atol=1e-4)
    started = conjugate_gradient(apply, right_side, expected, iterations=1, tolerance=1e-3)
    torch.testing.assert_close(started, expected)
    early = conjugate_gradient(apply, right_side, iterations=2, tolerance=0)
    assert (early - expected).norm() > 0.1 * expected.norm()


@pytest.mark.parametrize("weight", [0.0, 0.3])
def test_proximal_step_against_the_dense_solution(weight: float) -> None:
    operator = SenseOperator(random_array(1, 1, 4, 5, 4), random_mask(1, 1, 5, 4))
    matrix = dense(operator, (1, 5, 4))
    kspace, image = random_array(1, 4, 5, 4, seed=1), random_array(1, 1, 5, 4, seed=2)
    result = sense_proximal(operator, kspace, image, weight, iterations=200, tolerance=1e-6)
    measured = (kspace * operator.mask).flatten()
    normal = matrix.mH @ matrix + weight * torch.eye(20)
    expected = torch.linalg.solve(normal, matrix.mH @ measured + weight * image.flatten())
    torch.testing.assert_close(result.flatten(), expected, rtol=1e-2, atol=1e-3)


def test_proximal_step_keeps_the_estimate_where_nothing_is_measured() -> None:
    operator = SenseOperator(random_array(2, 1, 4, 6, 6), torch.zeros(2, 1, 6, 6, dtype=torch.bool))
    image = random_array(2, 1, 6, 6)
    result = sense_proximal(operator, random_array(2, 4, 6, 6), image, torch.tensor([0.1, 2.0]))
    torch.testing.assert_close(result, image)


def test_replace_samples() -> None:
    estimate, measured, mask = random_array(2, 3, 4, 5), random_array(2, 3, 4, 5, seed=1), random_mask(2, 1, 4, 5)
    result = replace_samples(estimate, measured, mask)
    every = mask.expand_as(result)
    assert torch.equal(result[every], measured[every])
    assert torch.equal(result[~every], estimate[~every])
    torch.testing.assert_close(replace_samples(estimate, measured, mask.float()), result)
    half = replace_samples(estimate, measured, torch.full((1, 1, 4, 5), 0.5))
    torch.testing.assert_close(half, (estimate + measured) / 2)


def test_errors() -> None:
    with pytest.raises(ValueError, match="batch, set, coil"):
        SenseOperator(random_array(1, 4, 6, 6), random_mask(1, 1, 6, 6))
    with pytest.raises(ValueError, match="does not broadcast"):
        SenseOperator(random_array(1, 1, 4, 6, 6), random_mask(1, 1, 6, 5))


def test_samples_outside_the_mask_are_not_looked_at() -> None:
    operator = SenseOperator(random_array(1, 1, 4, 6, 6), random_mask(1, 1, 6, 6))
    kspace = fft2c(random_array(1, 4, 6, 6, seed=3))
    changed = torch.where(operator.mask.bool(), kspace, 100 * kspace)
    torch.testing.assert_close(operator.adjoint(changed), operator.adjoint(kspace))

"""Low-rank k-space against the explicit periodic Hankel matrix."""

from __future__ import annotations

import numpy as np
import pytest
import sigpy.mri
import torch

from priors.signal.fourier import fft2c
from priors.signal.hankel import gram_matrix, low_rank_completion, low_rank_projection


def random_kspace(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))


def hankel_matrix(kspace: torch.Tensor, window: int) -> torch.Tensor:
    """Explicit periodic Hankel matrix of one slice (coil, y, x): a row a position, columns (coil, wy, wx)."""
    columns = [
        torch.roll(coil, (-row, -column), (0, 1)).flatten()
        for coil in kspace
        for row in range(window)
        for column in range(window)
    ]
    return torch.stack(columns, dim=1)


def explicit_projection(kspace: torch.Tensor, window: int, rank: int) -> torch.Tensor:
    left, values, right = torch.linalg.svd(hankel_matrix(kspace, window), full_matrices=False)
    columns = iter(((left[:, :rank] * values[:rank]) @ right[:rank]).T)
    result = torch.zeros_like(kspace)
    for coil in result:
        for row in range(window):
            for column in range(window):
                coil += torch.roll(next(columns).reshape(coil.shape), (row, column), (0, 1))
    return result / window**2


def test_gram_matrix() -> None:
    kspace = random_kspace(2, 3, 9, 8)
    for one, gram in zip(kspace, gram_matrix(kspace, 4), strict=True):
        matrix = hankel_matrix(one, 4)
        torch.testing.assert_close(gram, (matrix.mH @ matrix).to(gram.dtype), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("window", "rank"), [(3, 1), (4, 20), (5, 40), (6, 6)])
def test_projection_is_that_of_the_explicit_svd(window: int, rank: int) -> None:
    kspace = random_kspace(2, 3, 15, 12)
    result = low_rank_projection(kspace, window, rank)
    for one, projected in zip(kspace, result, strict=True):
        difference = (projected - explicit_projection(one, window, rank)).abs().max()
        assert difference < 1e-5 * one.abs().max()
    assert (result - kspace).norm() > 0.1 * kspace.norm()


def test_projection_is_exact_where_singular_values_span_many_decades() -> None:
    kspace = random_kspace(1, 3, 24, 24)
    strong = torch.zeros_like(kspace)
    strong[..., 12, 12] = 300  # the rank reaches far below it, into what looks like noise beside it
    projected = low_rank_projection(kspace + strong, 4, 24)[0]
    exact = explicit_projection((kspace + strong)[0].to(torch.complex128), 4, 24)
    assert (projected - exact).norm() < 1e-5 * kspace.norm()


def test_window_larger_than_half_of_the_kspace() -> None:
    kspace = random_kspace(1, 2, 6, 7)
    expected = explicit_projection(kspace[0], 5, 9)
    torch.testing.assert_close(low_rank_projection(kspace, 5, 9)[0], expected, rtol=1e-4, atol=1e-5)


def test_full_rank_changes_nothing() -> None:
    kspace = random_kspace(1, 2, 10, 11)
    torch.testing.assert_close(low_rank_projection(kspace, 3, 18), kspace, rtol=1e-4, atol=1e-5)


def test_completion_fills_missing_samples_and_keeps_measured_ones() -> None:
    size, window, rank = 64, 5, 30
    image = sigpy.shepp_logan((size, size)) * sigpy.mri.birdcage_maps((4, size, size))
    kspace = fft2c(torch.from_numpy(image.astype(np.complex64)))[None]
    generator = torch.Generator().manual_seed(1)
    mask = torch.rand(1, 1, size, size, generator=generator) < 0.5
    junk = torch.where(mask, kspace, 1e3)
    result = low_rank_completion(junk, mask, window, rank, 40)
    sampled = mask.expand_as(kspace)
    assert torch.equal(result[sampled], kspace[sampled])
    assert (result - kspace).norm() < 0.35 * (kspace * ~mask).norm()


def test_errors() -> None:
    kspace = random_kspace(1, 2, 6, 7)
    with pytest.raises(ValueError, match="rank 0"):
        low_rank_projection(kspace, 3, 0)
    with pytest.raises(ValueError, match="rank 19"):
        low_rank_projection(kspace, 3, 19)
    with pytest.raises(ValueError, match="window 7"):
        low_rank_projection(kspace, 7, 3)
    with pytest.raises(ValueError, match="batch, coil, y, x"):
        gram_matrix(kspace[0], 3)

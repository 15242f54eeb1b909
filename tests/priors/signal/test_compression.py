"""Coil compression matrices."""

from __future__ import annotations

import numpy as np
import pytest
import sigpy.mri
import torch

from priors.signal.compression import geometric_compression, svd_compression
from priors.signal.fourier import fft2c, ifft2c


def kspace_of_phantom(coils: int = 12, size: int = 48) -> torch.Tensor:
    image = sigpy.shepp_logan((size, size)) * sigpy.mri.birdcage_maps((coils, size, size))
    return fft2c(torch.from_numpy(image.astype(np.complex64)))


def compress(kspace: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """Virtual coils of data (..., coil, y, x), or (..., readout, coil, y, x) with a matrix for each position."""
    return (matrix @ kspace.flatten(-2)).unflatten(-1, kspace.shape[-2:])


def energy(array: torch.Tensor) -> float:
    return float(array.abs().square().sum())


def test_rows_are_orthonormal_and_hold_the_most_energy() -> None:
    kspace = kspace_of_phantom()
    matrix = svd_compression(kspace, 5)
    assert matrix.shape == (5, 12)
    torch.testing.assert_close(matrix @ matrix.mH, torch.eye(5, dtype=torch.complex64), rtol=0, atol=1e-5)
    values = torch.linalg.svdvals(kspace.flatten(1)) ** 2
    virtual = compress(kspace, matrix)
    assert virtual.shape == (5, 48, 48)
    np.testing.assert_allclose(virtual.abs().square().sum((1, 2)).numpy(), values[:5].numpy(), rtol=1e-3)


def test_energy_chooses_the_fewest_coils() -> None:
    kspace = kspace_of_phantom()
    values = torch.linalg.svdvals(kspace.flatten(1)).double() ** 2
    fractions = (values.cumsum(0) / values.sum()).tolist()
    matrix = svd_compression(kspace, energy=0.95)
    kept = len(matrix)
    assert fractions[kept - 2] < 0.95 <= fractions[kept - 1]
    assert energy(compress(kspace, matrix)) >= 0.949 * energy(kspace)
    assert len(svd_compression(kspace, 2, 0.95)) == 2
    assert len(svd_compression(kspace, 12, 0.95)) == kept
    assert len(svd_compression(kspace)) == 12


@pytest.mark.parametrize("noise", [1e-3, 1e-2, 1e-1])
def test_noise_chooses_the_coils_that_stand_out_of_it(noise: float) -> None:
    clean = kspace_of_phantom()
    generator = torch.Generator().manual_seed(0)
    noisy = clean + noise * 2**0.5 * torch.randn(clean.shape, dtype=torch.complex64, generator=generator)
    matrix = svd_compression(noisy, noise=noise)
    left_out = energy(clean) - energy(compress(clean, matrix))
    of_noise = 2 * noise**2 * clean.numel()
    assert left_out < 0.4 * of_noise
    if len(matrix) > 1:  # one coil less would leave out more
        assert energy(clean) - energy(compress(clean, matrix[:-1])) > 0.1 * of_noise
    assert len(svd_compression(noisy, noise=0.0)) == 12
    assert len(svd_compression(noisy, noise=1e3)) == 1


def test_all_virtual_coils_are_a_rotation() -> None:
    kspace = kspace_of_phantom()
    matrix = svd_compression(kspace)
    torch.testing.assert_close(matrix.mH @ compress(kspace, matrix).flatten(1), kspace.flatten(1), rtol=1e-3, atol=1e-4)


def test_batches_share_a_matrix_and_phase_is_fixed() -> None:
    kspace = kspace_of_phantom()
    batch = torch.stack([kspace, kspace * 1j])
    matrix = svd_compression(batch, 4, coil_axis=1)
    torch.testing.assert_close(matrix, svd_compression(kspace, 4), rtol=1e-3, atol=1e-4)
    assert compress(batch, matrix).shape == (2, 4, 48, 48)
    largest = matrix.gather(1, matrix.abs().argmax(1, keepdim=True))
    torch.testing.assert_close(largest, largest.abs().to(matrix.dtype), rtol=0, atol=1e-6)


def hybrid_of_phantom() -> torch.Tensor:
    """Readout in image space, (x, coil, y, 1)."""
    return ifft2c(kspace_of_phantom(), axes=(-1,)).permute(2, 0, 1).unsqueeze(-1).contiguous()


def test_geometric_keeps_more_energy_than_one_matrix() -> None:
    hybrid = hybrid_of_phantom()
    matrices = geometric_compression(hybrid, 3)
    assert matrices.shape == (48, 3, 12)
    identity = torch.eye(3, dtype=torch.complex64).expand(48, -1, -1)
    torch.testing.assert_close(matrices @ matrices.mH, identity, rtol=0, atol=1e-4)
    geometric = compress(hybrid, matrices)
    assert geometric.shape == (48, 3, 48, 1)
    single = compress(hybrid, svd_compression(hybrid, 3, coil_axis=1))
    assert energy(hybrid - 0) > energy(geometric) > energy(single)
    singular = torch.linalg.svdvals(hybrid.flatten(2))[:, :3].square().sum()
    assert energy(geometric) == pytest.approx(float(singular), rel=1e-3)


def test_geometric_is_aligned_along_the_readout() -> None:
    hybrid = hybrid_of_phantom()
    matrices = geometric_compression(hybrid, 3)
    inside = hybrid.abs().square().sum((1, 2, 3))
    inside = inside > 0.05 * inside.max()
    unaligned = torch.stack([svd_compression(position, 3) for position in hybrid])

    def roughness(array: torch.Tensor) -> float:
        steps = (array[1:] - array[:-1]).abs().square().sum((1, 2))
        return float(steps[inside[1:] & inside[:-1]].mean())

    assert roughness(matrices) < 0.2 * roughness(unaligned)


def test_errors() -> None:
    kspace = kspace_of_phantom(4, 16)
    with pytest.raises(ValueError, match="5 virtual coils"):
        svd_compression(kspace, 5)
    with pytest.raises(ValueError, match="energy 0"):
        svd_compression(kspace, energy=0)
    with pytest.raises(ValueError, match="0 virtual coils"):
        geometric_compression(kspace.movedim(-1, 0), 0)
    with pytest.raises(ValueError, match="not \\(x, coil"):
        geometric_compression(kspace[0], 1)

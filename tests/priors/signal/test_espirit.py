"""ESPIRiT maps against SigPy, true sensitivities and aliased anatomy."""

from __future__ import annotations

import numpy as np
import pytest
import sigpy.mri
import torch

from priors.classical.cg_sense import cg_sense
from priors.signal.espirit import calibration_region, espirit_maps, low_rank_maps
from priors.signal.fourier import fft2c


def birdcage(coils: int, height: int, width: int) -> torch.Tensor:
    maps = torch.from_numpy(sigpy.mri.birdcage_maps((coils, height, width)).astype(np.complex64))
    return torch.nn.functional.normalize(maps, dim=0)


def phantom(height: int, width: int) -> torch.Tensor:
    return torch.from_numpy(sigpy.shepp_logan((height, width)).astype(np.complex64))


def scan(coils: int, height: int, width: int, noise: float = 0.01) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Noisy k-space (1, coil, y, x), true maps (coil, y, x) and object mask (y, x)."""
    image, maps = phantom(height, width), birdcage(coils, height, width)
    generator = torch.Generator().manual_seed(0)
    kspace = fft2c(image * maps) + noise * torch.randn(coils, height, width, dtype=torch.complex64, generator=generator)
    return kspace[None], maps, image.abs() > 0.05


def centre(kspace: torch.Tensor, size: int) -> torch.Tensor:
    rows, columns = (slice(n // 2 - size // 2, n // 2 - size // 2 + size) for n in kspace.shape[-2:])
    return kspace[..., rows, columns]


def correlation(maps: torch.Tensor, others: torch.Tensor, inside: torch.Tensor) -> float:
    product = (maps.conj() * others).sum(0).abs() / torch.linalg.vector_norm(maps, dim=0).clamp_min(1e-6)
    return float(product[inside].mean())


@pytest.mark.slow
def test_agrees_with_sigpy() -> None:
    kspace, _, inside = scan(8, 256, 256)
    maps = espirit_maps(centre(kspace, 24), (256, 256))
    app = sigpy.mri.app.EspiritCalib(kspace[0].numpy(), calib_width=24, crop=0, show_pbar=False)
    reference = torch.from_numpy(app.run())
    assert maps.shape == (1, 1, 8, 256, 256)
    assert maps.dtype == torch.complex64
    assert correlation(maps[0, 0], reference, inside) > 0.999


@pytest.mark.parametrize("shape", [(64, 64), (63, 81), (49, 66)])
def test_finds_the_true_maps_for_any_size(shape: tuple[int, int]) -> None:
    kspace, truth, inside = scan(6, *shape)
    maps = espirit_maps(centre(kspace, 20), shape)
    assert correlation(maps[0, 0], truth, inside) > 0.999
    assert correlation(maps[0, 0], truth.roll(8, 0), inside) < 0.995
    assert torch.linalg.vector_norm(maps[0, 0], dim=0)[inside].min() > 0.95


def test_position_of_the_calibration_region_does_not_matter() -> None:
    kspace, _, inside = scan(4, 64, 64)
    shifted = kspace[..., 20:42, 23:47]
    maps = espirit_maps(shifted, (64, 64))
    assert correlation(maps[0, 0], espirit_maps(centre(kspace, 22), (64, 64))[0, 0], inside) > 0.999


def test_phase_is_smooth_and_referenced() -> None:
    kspace, truth, inside = scan(6, 64, 64, noise=0)
    calibration = centre(kspace, 24)
    turned = espirit_maps(calibration * np.exp(1.1j), (64, 64))
    maps = espirit_maps(calibration, (64, 64))
    torch.testing.assert_close(turned, maps, rtol=1e-2, atol=1e-2)
    # Up to one smooth phase the maps are the true ones: the phase between them never jumps from pixel to pixel.
    relative = (maps[0, 0].conj() * truth).sum(0)
    steps = (relative[1:] * relative[:-1].conj()).angle().abs()
    assert steps[inside[1:] & inside[:-1]].max() < 0.3


def test_inner_product_with_the_principal_component_is_real_and_positive() -> None:
    calibration = centre(scan(6, 64, 64)[0], 24)
    components = torch.linalg.svd(calibration[0].flatten(1)).U
    for index, one in enumerate(espirit_maps(calibration, (64, 64), sets=2, crop=0, soft=False)[0]):
        overlap = torch.einsum("c,cyx->yx", components[:, index].conj(), one)
        clear = overlap.abs() > 0.1
        phase = (overlap[clear] / overlap[clear].mean()).angle()
        assert phase.abs().max() < 0.01


@pytest.mark.parametrize(("size", "offset"), [(63, 1), (64, 0)])
def test_pixels_at_the_same_position_have_the_same_map(size: int, offset: int) -> None:
    calibration = centre(scan(4, 64, 64)[0], 24)
    coarse, fine = (espirit_maps(calibration, (n, n)) for n in (size, 3 * size))
    torch.testing.assert_close(fine[..., offset::3, offset::3], coarse, rtol=0, atol=1e-2)


def tight_field_of_view() -> tuple[torch.Tensor, torch.Tensor]:
    """K-space (1, coil, 64, 64) of an object of 96 rows folded into 64, and the rows where anatomy overlaps."""
    coil_images = phantom(96, 64) * birdcage(8, 96, 64)
    folded = coil_images[:, 16:80].clone()
    folded[:, 48:] += coil_images[:, :16]
    folded[:, :16] += coil_images[:, 80:]
    generator = torch.Generator().manual_seed(0)
    noise = 0.003 * torch.randn(8, 64, 64, dtype=torch.complex64, generator=generator)
    image = phantom(96, 64).abs() > 0.05
    overlap = image[16:80].clone()
    overlap[16:48] = False
    overlap[48:] &= image[:16]
    overlap[:16] &= image[80:]
    return (fft2c(folded) + noise)[None], overlap


def test_two_sets_explain_aliased_anatomy_and_one_does_not() -> None:
    kspace, overlap = tight_field_of_view()
    mask = torch.ones(1, 1, 64, 64, dtype=torch.bool)
    residuals = []
    for sets in (1, 2):
        maps = espirit_maps(centre(kspace, 28), (64, 64), sets=sets)
        image = cg_sense(kspace, maps, mask, regularisation=1e-6, iterations=100, tolerance=1e-5)
        residuals.append(float((fft2c((maps * image.unsqueeze(2)).sum(1)) - kspace).norm() / kspace.norm()))
    weight = maps[0, 1].abs().square().sum(0).sqrt()
    elsewhere = torch.zeros_like(overlap)
    elsewhere[24:40] = True
    assert weight[overlap].mean() > 0.8
    assert weight[elsewhere].mean() < 0.1
    assert residuals[0] > 5 * residuals[1]
    assert residuals[1] < 0.03


def test_maps_of_the_low_rank_of_whole_kspace() -> None:
    kspace, truth, inside = scan(6, 64, 64)
    maps = low_rank_maps(kspace, 6, 40)
    assert maps.shape == (1, 1, 6, 64, 64)
    torch.testing.assert_close(maps.abs().square().sum(2).sqrt()[0, 0][inside], torch.ones(int(inside.sum())))
    assert correlation(maps[0, 0], truth, inside) > 0.999


def test_two_sets_of_the_low_rank_explain_aliased_anatomy() -> None:
    kspace, _ = tight_field_of_view()
    mask = torch.ones(1, 1, 64, 64, dtype=torch.bool)
    residuals = []
    for sets in (1, 2):
        maps = low_rank_maps(kspace, 6, 60, sets=sets)
        image = cg_sense(kspace, maps, mask, regularisation=1e-6, iterations=100, tolerance=1e-5)
        residuals.append(float((fft2c((maps * image.unsqueeze(2)).sum(1)) - kspace).norm() / kspace.norm()))
    assert residuals[0] > 5 * residuals[1]
    assert residuals[1] < 0.03


@pytest.mark.parametrize(("window", "rank", "message"), [(65, 10, "window"), (6, 0, "rank"), (6, 145, "rank")])
def test_low_rank_maps_that_cannot_be(window: int, rank: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        low_rank_maps(torch.ones(1, 4, 64, 64, dtype=torch.complex64), window, rank)


def test_further_sets_are_orthogonal_and_of_falling_weight() -> None:
    kspace, _ = tight_field_of_view()
    maps = espirit_maps(centre(kspace, 28), (64, 64), sets=3, crop=0, soft=False)[0]
    gram = torch.einsum("mcyx,ncyx->mnyx", maps.conj(), maps)
    assert gram[0, 1].abs().max() < 1e-3
    weights = maps.abs().square().sum(1).mean((1, 2))
    assert weights[0] > weights[1] > weights[2]


def test_crop_and_soft_weights() -> None:
    kspace, _, inside = scan(6, 64, 64, noise=0.02)
    calibration = centre(kspace, 24)
    weights = [
        espirit_maps(calibration, (64, 64), crop=crop, soft=soft)[0, 0].abs().square().sum(0).sqrt()
        for crop, soft in ((0.0, True), (0.9, False), (0.9, True))
    ]
    torch.testing.assert_close(weights[0], torch.ones(64, 64))
    assert set(weights[1].round(decimals=3).unique().tolist()) == {0.0, 1.0}
    assert weights[1][inside].mean() > 0.95
    assert weights[1][:6, :6].mean() < 0.5
    partial = (weights[2] > 0.05) & (weights[2] < 0.95)
    assert partial.any()


def test_one_coil_empty_data_and_batches() -> None:
    kspace, _, _ = scan(1, 32, 32)
    maps = espirit_maps(centre(kspace, 16), (32, 32), crop=0)
    torch.testing.assert_close(maps, torch.ones_like(maps), rtol=0, atol=1e-5)
    two = espirit_maps(centre(kspace, 16), (32, 32), sets=2, crop=0)
    assert torch.equal(two[:, 1], torch.zeros_like(two[:, 1]))
    kspace, _, _ = scan(4, 32, 32)
    calibration = torch.cat([torch.zeros_like(kspace), kspace, 1e6 * kspace])[..., 6:26, 6:26]
    maps = espirit_maps(calibration, (32, 32))
    assert torch.equal(maps[0], torch.zeros_like(maps[0]))
    torch.testing.assert_close(maps[2], maps[1], rtol=1e-2, atol=1e-2)


def test_samples_whose_squares_have_no_room_in_32_bits() -> None:
    generator = torch.Generator().manual_seed(0)
    calibration = torch.randn(1, 3, 12, 12, dtype=torch.complex64, generator=generator)
    expected = espirit_maps(calibration, (16, 16), kernel=3)
    assert torch.allclose(espirit_maps(calibration * 1e25, (16, 16), kernel=3), expected, atol=1e-4)


def test_more_unknowns_than_patches() -> None:
    kspace, truth, inside = scan(12, 48, 48, noise=0.002)
    maps = espirit_maps(centre(kspace, 14), (48, 48))
    assert correlation(maps[0, 0], truth, inside) > 0.99


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kernel": 9}, "calibration region of 8 x 12 samples is smaller than the 9 x 9 kernel"),
        ({"sets": 0}, "0 map sets"),
        ({"threshold": 1.5}, "threshold 1.5"),
        ({"crop": -0.1}, "crop -0.1"),
    ],
)
def test_errors(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        espirit_maps(torch.ones(1, 4, 8, 12, dtype=torch.complex64), (32, 32), **arguments)  # type: ignore[arg-type]


def rectangle(shape: tuple[int, int], rows: slice, columns: slice) -> np.ndarray:
    mask = np.zeros(shape, dtype=bool)
    mask[rows, columns] = True
    return mask


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        (rectangle((64, 48), slice(20, 44), slice(12, 36)), (slice(20, 44), slice(12, 36))),
        (rectangle((65, 49), slice(26, 39), slice(0, 49)), (slice(26, 39), slice(0, 49))),
        (np.ones((8, 9), dtype=bool), (slice(0, 8), slice(0, 9))),
        (rectangle((64, 64), slice(30, 60), slice(0, 64)), (slice(30, 35), slice(0, 64))),
        (rectangle((64, 64), slice(0, 20), slice(0, 64)), (slice(32, 32), slice(32, 32))),
        (rectangle((64, 64), slice(32, 33), slice(32, 33)), (slice(32, 33), slice(32, 33))),
    ],
)
def test_calibration_region(mask: np.ndarray, expected: tuple[slice, slice]) -> None:
    assert calibration_region(mask) == expected
    assert calibration_region(torch.from_numpy(mask)) == expected


def test_calibration_region_among_undersampled_lines() -> None:
    mask = rectangle((144, 192), slice(48, 96), slice(0, 192))
    mask[::3] = True
    rows, columns = calibration_region(mask)
    assert (rows, columns) == (slice(48, 97), slice(0, 192))
    mask[70, 96] = False
    rows, columns = calibration_region(mask)
    assert mask[rows, columns].all()
    with pytest.raises(ValueError, match="sampling mask"):
        calibration_region(mask[None])

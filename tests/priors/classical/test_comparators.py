"""GRAPPA, SAKE, LINDBERG, total variation and zero filling on a simulated scan."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import sigpy
import sigpy.mri
import torch

from priors.classical.cg_sense import cg_sense, zero_filled
from priors.classical.grappa import grappa
from priors.classical.lindberg import lindberg
from priors.classical.sake import sake
from priors.classical.total_variation import total_variation
from priors.signal.fourier import fft2c, ifft2c

SIZE = 64
COMPLETING: dict[str, Callable[..., torch.Tensor]] = {
    "zero_filled": lambda kspace, maps, mask: zero_filled(kspace, mask),
    "grappa": grappa,
    "sake": lambda kspace, maps, mask: sake(kspace, mask, iterations=15),
    "lindberg": lambda kspace, maps, mask: lindberg(kspace, mask, iterations=10),
}


def simulated(height: int = SIZE, width: int = SIZE, coils: int = 6) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Noiseless k-space (1, coil, y, x), maps (1, 1, coil, y, x) and image (1, 1, y, x)."""
    image = torch.from_numpy(sigpy.shepp_logan((height, width)).astype(np.complex64))[None, None]
    maps = torch.from_numpy(sigpy.mri.birdcage_maps((coils, height, width)).astype(np.complex64))[None, None]
    maps = maps / torch.linalg.vector_norm(maps, dim=2, keepdim=True)
    return fft2c((maps * image.unsqueeze(2)).sum(1)), maps, image


def lines(height: int, width: int, factor: int, centre: int = 16) -> torch.Tensor:
    mask = torch.zeros(1, 1, height, width, dtype=torch.bool)
    mask[..., ::factor, :] = True
    mask[..., height // 2 - centre // 2 : height // 2 + centre // 2, :] |= centre > 0
    return mask


def scattered(height: int, width: int, factor: float) -> torch.Tensor:
    mask = np.abs(sigpy.mri.poisson((height, width), factor, calib=(16, 16), seed=0)) > 0
    return torch.from_numpy(mask)[None, None]


def error(kspace: torch.Tensor, truth: torch.Tensor) -> float:
    return float((kspace - truth).norm() / truth.norm())


@pytest.mark.slow
@pytest.mark.parametrize("name", COMPLETING)
def test_measured_samples_stay_and_missing_ones_come_nearer(name: str) -> None:
    kspace, maps, _ = simulated()
    mask = scattered(SIZE, SIZE, 3)
    result = COMPLETING[name](torch.where(mask, kspace, 1e6), maps, mask)  # what was not measured is not looked at
    assert torch.equal(result * mask, kspace * mask)
    before = error(kspace * mask, kspace)
    assert error(result, kspace) < (before * 1.001 if name == "zero_filled" else 0.7 * before)


@pytest.mark.parametrize("name", COMPLETING)
def test_slices_do_not_mix_and_empty_ones_stay_empty(name: str) -> None:
    kspace, maps, _ = simulated(48, 40, 4)
    mask = lines(48, 40, 2)
    both = COMPLETING[name](torch.cat([0 * kspace, kspace]), maps.repeat(2, 1, 1, 1, 1), mask.repeat(2, 1, 1, 1))
    assert not both[0].any()
    torch.testing.assert_close(both[1:], COMPLETING[name](kspace, maps, mask), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", COMPLETING)
def test_full_sampling_is_left_alone(name: str) -> None:
    kspace, maps, _ = simulated(33, 40, 4)
    full = torch.ones(1, 1, 33, 40, dtype=torch.bool)
    torch.testing.assert_close(COMPLETING[name](kspace, maps, full), kspace)


# --- GRAPPA ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("factor", [2, 3])
def test_grappa_of_regular_lines_along_either_axis(axis: int, factor: int) -> None:
    kspace, maps, _ = simulated(60, 64)
    mask = lines(60, 64, factor) if axis == 0 else lines(64, 60, factor).mT
    assert error(grappa(kspace, maps, mask, regularisation=1e-6), kspace) < 0.05 < 0.3 < error(kspace * mask, kspace)


def test_grappa_of_two_axes() -> None:
    kspace, maps, _ = simulated()
    mask = lines(SIZE, SIZE, 2, 0) & lines(SIZE, SIZE, 2, 0).mT
    mask[..., 24:40, 24:40] = True
    assert error(grappa(kspace, maps, mask, regularisation=1e-4), kspace) < 0.1 < 0.5 < error(kspace * mask, kspace)


def test_grappa_without_calibration_region_takes_the_maps() -> None:
    kspace, maps, _ = simulated()
    mask = lines(SIZE, SIZE, 2, centre=0)
    assert error(grappa(kspace, maps, mask), kspace) < 0.05 < error(kspace * mask, kspace)
    scaled = grappa(1e3 * kspace, maps, mask)
    torch.testing.assert_close(scaled, 1e3 * grappa(kspace, maps, mask), rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize(
    "sampled", [(slice(50, 110), slice(None)), (slice(70, 90), slice(10, 14)), (slice(0, None, 24), slice(None))]
)
def test_grappa_of_low_resolution_and_of_sparse_lines_fills_what_it_can(sampled: tuple[slice, slice]) -> None:
    kspace, maps, _ = simulated(160, 24, 4)
    mask = torch.zeros(1, 1, 160, 24, dtype=torch.bool)
    mask[(..., *sampled)] = True
    result = grappa(kspace, maps, mask)
    assert torch.equal(result * mask, kspace * mask) and torch.isfinite(torch.view_as_real(result)).all()


def test_grappa_of_a_known_linear_relation_is_exact() -> None:
    """Two coils of which one is the other shifted by one sample: the missing lines are in it."""
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(32, 32, dtype=torch.complex64, generator=generator)
    kspace = torch.stack([first, first.roll(1, 0)])[None]
    mask = lines(32, 32, 2, 12)
    maps = torch.ones(1, 1, 2, 32, 32, dtype=torch.complex64)
    filled = grappa(kspace, maps, mask, kernel=4, regularisation=0)
    inner = slice(4, 28)
    # Odd lines of the first coil stand in the second coil one line further on, which is measured.
    torch.testing.assert_close(filled[0, 0, inner, inner], first[inner, inner], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda k, s, m: grappa(k, s, m, kernel=1), "grappa: the kernel must be from 2 to 15"),
        (lambda k, s, m: grappa(k, s[:, :, :2], m), "grappa: maps of shape"),
        (lambda k, s, m: sake(k, m, rank=10**6), "rank"),
        (lambda k, s, m: sake(k, m, rank=-1), "sake: "),
        (lambda k, s, m: sake(k, m, window=99), "window 99 does not fit"),
        (lambda k, s, m: lindberg(k, m, regularisation=0), "lindberg: the regularisation must be above 0"),
        (lambda k, s, m: lindberg(k, m, patch=99), "patches of 99 pixels do not fit"),
        (lambda k, s, m: total_variation(k, s, m, -1.0), "total variation: regularisation -1.0 is negative"),
        (lambda k, s, m: total_variation(k, s[0], m), "total variation: maps of shape"),
    ],
)
def test_bad_arguments(change: Callable[..., torch.Tensor], message: str) -> None:
    kspace, maps, _ = simulated(32, 32, 4)
    with pytest.raises(ValueError, match=message):
        change(kspace, maps, lines(32, 32, 2))


# --- the others ------------------------------------------------------------------------------------------------------


def test_sake_grows_its_rank_within_what_few_coils_have() -> None:
    kspace, _, _ = simulated(40, 40, 1)
    mask = scattered(40, 40, 2)
    assert torch.isfinite(torch.view_as_real(sake(kspace, mask, window=4, iterations=5))).all()


@pytest.mark.slow
def test_lindberg_learns_what_coils_share() -> None:
    """Joint over four coils it finds more than in each coil alone."""
    kspace, _, _ = simulated(coils=4)
    mask = scattered(SIZE, SIZE, 4)
    level = ifft2c(kspace).abs().max()
    joint = error(lindberg(kspace / level, mask, iterations=30) * level, kspace)
    alone = [lindberg(kspace[:, c : c + 1] / level, mask, iterations=30) * level for c in range(4)]
    assert joint < error(torch.cat(alone, 1), kspace)


@pytest.mark.slow
def test_total_variation_is_sigpys_with_one_set() -> None:
    kspace, maps, image = simulated(48, 48, 4)
    mask = scattered(48, 48, 3)
    measured = torch.where(mask, kspace, 0)
    app = sigpy.mri.app.TotalVariationRecon(
        measured[0].numpy(),
        maps[0, 0].numpy(),
        2e-3,
        weights=mask[0, 0].float().numpy(),
        max_iter=1500,
        show_pbar=False,
    )
    theirs = torch.from_numpy(np.asarray(app.run())).to(measured)
    ours = total_variation(measured, maps, mask, 2e-3, 300)
    assert error(ours[0, 0], theirs) < 5e-3
    assert torch.equal(ours, total_variation(measured, maps, mask, 2e-3, 300))
    assert error(total_variation(measured, maps, mask), image) < 0.5 * error(cg_sense(measured, maps, mask), image)


def test_total_variation_with_two_sets() -> None:
    kspace, maps, _ = simulated(48, 48, 4)
    both = torch.cat([maps, 0 * maps], 1)
    mask = scattered(48, 48, 3)
    found = total_variation(kspace, both, mask, iterations=30)
    assert not found[:, 1].any()
    torch.testing.assert_close(found[:, :1], total_variation(kspace, maps, mask, iterations=30), rtol=1e-3, atol=1e-3)

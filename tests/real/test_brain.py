"""Quality on a real, fully sampled 4-coil brain that no weights were trained on (../shared/data)."""

from __future__ import annotations

import pytest

from benchmarks.wkgm import Scan, brain, ours, root_sum_of_squares
from priors.checkpoints import load_checkpoint, shipped_checkpoint


@pytest.fixture(scope="module")
def prior():
    return load_checkpoint(shipped_checkpoint())[0]


@pytest.mark.parametrize(
    ("low_rank", "name", "lowest_psnr", "lowest_ssim"),
    [
        (True, "poisson_4", 45.5, 0.979),
        (True, "poisson_10", 41.0, 0.958),
        (True, "random2D_4", 44.5, 0.974),
        (False, "poisson_10", 40.4, 0.92),
    ],
)
def test_quality(low_rank, name, lowest_psnr, lowest_ssim, real_data, prior):
    kspace, masks = brain(real_data)
    scan = Scan(name, kspace, masks[name])
    image, result = ours(scan, prior, low_rank)
    psnr, ssim, _ = scan.score(image)
    assert result.consistency == "sense"
    assert result.evaluations <= 30
    assert psnr >= lowest_psnr
    assert ssim >= lowest_ssim
    assert psnr > scan.score(root_sum_of_squares(scan.measured))[0] + 9
    assert not any(result.warnings)

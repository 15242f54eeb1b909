"""log p as an alarm: areas under the curve, sets of images, and a Gaussian prior of which all is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import log_p_alarm
from benchmarks.log_p_alarm import Scores, area, atypical, image_sets, log_p, main, rows_of, scores
from priors.learning.checkpoints import shipped_checkpoint
from tests.priors.gaussian import ByDenoiser, ByDensity


def test_areas_under_the_curve() -> None:
    inside = np.array([0.0, 1.0, 2.0])
    assert area(inside, np.array([3.0, 4.0])) == 1
    assert area(inside, np.array([-1.0])) == 0
    assert area(inside, inside) == 0.5
    assert area(inside, np.array([1.5, 1.0])) == pytest.approx((2 + 1.5) / 6)
    assert atypical(np.array([0.5, 2.0, 8.0]), (1.0, 4.0)) == pytest.approx(np.log([4, 1, 4]))


def samples(deviation: float, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return deviation * 2**0.5 * torch.randn(12, 8, 8, dtype=torch.complex64, generator=generator)


def test_a_gaussian_prior_tells_other_variances() -> None:
    prior = ByDensity(torch.ones(8, 8))
    sets = {"own": samples(1, 0), "more": samples(2, 1), "less": samples(0.2, 2)}
    found = {name: scores(prior, images) for name, images in sets.items()}
    density = log_p(prior, sets["own"])
    assert density is not None and density.shape == (12,)
    expected = -0.5 * sets["own"].abs().square().sum((1, 2)).numpy() / (2 * 64 * np.log(2))
    assert density == pytest.approx(expected, rel=1e-4)
    more, less = rows_of(found, log_p(prior, samples(1, 3)), None)
    assert more == ["1.000", "1.000", "-"]
    assert less == ["0.000", "1.000", "-"]  # simple images are likely: a low log p alone is no alarm for them
    without = ByDenoiser(torch.ones(8, 8))
    assert scores(without, sets["own"]) == Scores(None, None, None)


def test_the_gain_of_the_warning() -> None:
    found = {
        "own": Scores(None, np.array([0.9, 1.0, 1.1]), np.array([False] * 3)),
        "other": Scores(None, np.array([3.0, 1.0]), np.array([True, False])),
    }
    assert rows_of(found, None, (0.5, 2.0)) == [["-", "-", "0.583 (50%)"]]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)

    def white(*shape: int) -> np.ndarray:
        return (generator.standard_normal(shape) + 1j * generator.standard_normal(shape)).astype(np.complex64)

    np.save(tmp_path / "t2_brain_slices.npy", white(5, 32, 32))
    np.save(tmp_path / "dev_knee_1ch.npy", white(1, 40, 64))
    np.save(tmp_path / "mr_magnitude.npy", generator.integers(1, 255, (6, 32, 32), np.uint8))
    (tmp_path / "mr_magnitude.txt").write_text("\n".join(["a FLAIR", "a T1W", "b T1W", "b FLAIR", "c T1W", "d"]))
    np.save(tmp_path / "siat_t2_head.npy", generator.standard_normal((9, 32, 32, 2)).astype(np.float16))
    return tmp_path


def test_sets_of_images(data: Path) -> None:
    sets = image_sets(data, 4)
    assert list(sets) == ["test brains", "phantom", "noise", "knee", "T1 brains"]
    for images in sets.values():
        assert images.shape == (4, 32, 32) and images.dtype == torch.complex64
        assert images.abs().amax((1, 2)).tolist() == pytest.approx([1] * 4)
    assert not torch.equal(sets["phantom"][0], sets["phantom"][1])
    np.save(data / "dev_knee_1ch.npy", np.zeros((1, 20, 64), np.complex64))
    with pytest.raises(ValueError, match="the knee of \\(20, 64\\) pixels is smaller than 32 x 32"):
        image_sets(data, 4)


@pytest.mark.slow
def test_the_table(data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["log_p_alarm", "--data", str(data), "--images", "3"])
    main()
    printed = capsys.readouterr().out
    assert "wkgm" in printed and "T1 brains" in printed and "warned of" in printed
    monkeypatch.setattr("sys.argv", ["log_p_alarm", "--data", str(data), "--weights", "none.safetensors"])
    with pytest.raises(SystemExit):
        main()
    assert "cannot be read" in capsys.readouterr().err
    assert shipped_checkpoint(log_p_alarm.INCLUDED).exists()

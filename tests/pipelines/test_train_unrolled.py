"""Unrolled networks from files: images, coils, masks; and their use in benchmark and stability."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from gadgets.stream import ReconError
from pipelines.cli import app
from pipelines.evaluation.benchmark import benchmark
from pipelines.evaluation.cases import BenchmarkCases
from pipelines.evaluation.entries import default_entries, read_entry
from pipelines.evaluation.stability import stability
from pipelines.evaluation.stability.parts import PARTS
from pipelines.simulation import SimulationSettings, simulate, write_raw
from pipelines.simulation.coils import birdcage_maps
from pipelines.simulation.sampling import PATTERNS
from pipelines.training_measurements import measured_images
from priors.unrolled import load_unrolled
from tests.unrolled_weights import write_unrolled

SIZE = 48
TINY = [
    "--steps", "10", "--denoiser.layers", "3", "--denoiser.width", "4", "--turns", "2", "--cg-iterations", "4",
    "--mask", "poisson:2",
]  # fmt: skip


@pytest.fixture
def images(tmp_path: Path) -> Path:
    y, x = np.mgrid[-1 : 1 : SIZE * 1j, -1 : 1 : SIZE * 1j]
    discs = np.stack([np.hypot(y - 0.1, x) < radius for radius in (0.5, 0.7)]) * (1 - 0.3 * (x > 0)) * np.exp(0.5j * y)
    path = tmp_path / "images.npy"
    np.save(path, discs.astype(np.complex64))
    return path


@pytest.fixture
def kspace(images: Path, tmp_path: Path) -> Path:
    from priors.signal.fourier import fft2c

    coils = torch.from_numpy(birdcage_maps(3, (SIZE, SIZE)) * np.load(images)[:, None])
    path = tmp_path / "kspace.npy"
    np.save(path, fft2c(coils).numpy())
    return path


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})
    return result.exit_code, " ".join(f"{result.output} {result.exception or ''}".split())


@pytest.mark.slow
def test_images_with_simulated_coils(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "u.safetensors"
    code, text = run("train", "unrolled", "--data", images, "--hold-out", "1", "-o", out, *TINY, "--coils", "2")
    assert code == 0, text
    assert "PSNR zero-filled [dB], held-out images" in text
    assert f"--set generative_recon.method=unrolled --set generative_recon.prior={out}" in text
    network, card = load_unrolled(out)
    assert card.options["sampling"] == "poisson:2" and card.options["coils"] == 2
    assert "measured by poisson:2 (R = 2.00) with 2 coils" in card.training_data
    assert np.array_equal(network.mask.numpy(), PATTERNS["poisson"]((SIZE, SIZE), 2.0))
    assert json.loads(out.with_suffix(".json").read_text())["kind"] == "unrolled"


@pytest.mark.slow
def test_samples_alone_of_scans_with_gaps(kspace: Path, tmp_path: Path) -> None:
    mask = PATTERNS["poisson"]((SIZE, SIZE), 2.0)
    gaps = tmp_path / "gaps.npy"
    np.save(gaps, np.load(kspace) * mask)
    out = tmp_path / "u.safetensors"
    arguments = ["train", "unrolled", "--kspace", "-o", out, *TINY, "--mask", "measured"]
    code, text = run(*arguments, "--data", gaps, "--supervision", "none")
    assert code == 0, text
    network, card = load_unrolled(out)
    assert card.options["supervision"] == "none" and not card.quality
    assert card.training_data.endswith("(R = 2.00) with 3 coils, learnt from the measured samples alone")
    assert np.array_equal(network.mask.numpy(), mask)
    code, text = run(*arguments, "--data", gaps)
    assert code != 0 and "mask measured has no references; set supervision=none" in text


def test_scans_keep_their_coils(kspace: Path, tmp_path: Path) -> None:
    mask = tmp_path / "masks.npz"
    sampled = PATTERNS["uniform"]((SIZE, SIZE), 2.0)
    np.savez(mask, one=sampled, two=sampled)
    found, encoding = measured_images((kspace,), True, f"{mask}:two", 8)
    assert encoding.kspace is not None and encoding.kspace.shape == (2, 3, SIZE, SIZE)
    assert encoding.maps.shape == (2, 1, 3, SIZE, SIZE) and encoding.name == "two"
    assert float(found.abs().amax()) == pytest.approx(1)
    with pytest.raises(ReconError, match="has several masks, one, two; name one, FILE:NAME"):
        measured_images((kspace,), True, str(mask), 8)
    raw = tmp_path / "full.h5"
    write_raw(raw, simulate(SimulationSettings(matrix=(32, 32, 1), coils=4, sampling="full", acceleration=1)))
    _, of_raw = measured_images((raw,), False, "poisson:2", 8)
    assert of_raw.maps.shape[-2:] == (32, 32)
    with pytest.raises(ReconError, match=r"train with scans of one matrix and number of coils"):
        measured_images((kspace, raw), True, "poisson:2", 8)


def test_masks_that_are_none(images: Path, kspace: Path, tmp_path: Path) -> None:
    for text, message in (
        ("spiral:4", "training: mask is 'spiral:4'; give PATTERN:ACCELERATION"),
        ("poisson", "training: mask is 'poisson'; give PATTERN:ACCELERATION"),
        (f"{tmp_path}/no.npy", "no.npy: cannot be read as masks"),
        ("measured", r"mask measured needs raw files or k-space \(--kspace\)"),
    ):
        with pytest.raises(ReconError, match=message):
            measured_images((images,), False, text, 2)
    thin = np.ones((SIZE, SIZE), bool)
    thin[[SIZE // 2 - 3, SIZE // 2 + 3]] = False
    np.save(tmp_path / "thin.npy", thin)
    with pytest.raises(ReconError, match=r"fully sampled centre of mask thin is 5 x 48; coil maps need 8 x 8"):
        measured_images((kspace,), True, str(tmp_path / "thin.npy"), 2)


@pytest.mark.slow
def test_benchmark_and_stability_warn_for_other_masks(images: Path, tmp_path: Path) -> None:
    cases = BenchmarkCases((images,), coils=4, slices=(0,), patterns=("poisson:2", "poisson:4")).cases()
    path = write_unrolled(tmp_path / "u.safetensors", torch.from_numpy(cases[0].mask), "poisson:2")
    entry = read_entry(f"unrolled:prior={path}")
    assert "unrolled" not in [one.method for one in default_entries()]
    rows = benchmark(cases, [entry], tmp_path / "out", repeats=0)["rows"]
    assert not any(row["error"] for row in rows)
    trained_for = [[text for text in row["warnings"] if "trained for" in text] for row in rows]
    assert not trained_for[0] and "another mask, R = 4.0" in trained_for[1][0]
    before = entry.identity()
    write_unrolled(path, torch.from_numpy(cases[1].mask))
    assert entry.identity() != before

    found = stability(cases[:1], [entry], tmp_path / "stability", contrasts=(0.2,), steps=1)["rows"]
    assert len(found) == len(PARTS) and not any(row["error"] for row in found)
    assert any("trained for" in text for row in found if row["part"] == "acceleration" for text in row["warnings"])
    with pytest.raises(ReconError, match="method unrolled needs weights for the mask of your scans"):
        read_entry("unrolled")

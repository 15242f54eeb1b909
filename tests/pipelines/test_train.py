"""Training from files: what is read, what survives a kill, what is written, and what is refused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from gadgets.stream import ReconError
from pipelines.cli import app
from pipelines.cli.train import _Pace
from pipelines.simulation import SimulationSettings, simulate, write_raw
from pipelines.simulation.writer import read_truth
from pipelines.train import TrainingJob, _training_set, recipe_of, train, trainable_kinds
from pipelines.training_data import training_images
from priors.learning.networks import Architecture
from priors.learning.recipe import Progress
from priors.learning.training import TrainingSettings, normalised
from priors.registry import load_prior
from priors.signal.fourier import fft2c
from priors.signal.weighting import Weighting
from priors.weighted_kspace import WeightedKspacePrior
from tests.paths import ROOT

FULL = SimulationSettings(matrix=(32, 32, 1), coils=4, slices=2, sampling="full", acceleration=1, noise_level=0.01)
TINY = [
    "--steps", "10", "--batch", "2", "--crop", "24", "--channels", "8", "--multipliers", "1,2", "--no-denoise",
    "--no-bf16",
]  # fmt: skip
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def images(count: int = 4, size: int = 32) -> np.ndarray:
    generator = np.random.default_rng(0)
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    discs = np.stack([np.hypot(y, x) < radius for radius in np.linspace(0.3, 0.8, count)]).astype(np.complex64)
    noise = generator.standard_normal(discs.shape) + 1j * generator.standard_normal(discs.shape)
    return (discs + 0.02 * noise).astype(np.complex64)


@pytest.fixture
def array(tmp_path: Path) -> Path:
    path = tmp_path / "images.npy"
    np.save(path, images())
    return path


def trained(kind: str, data: Path, out: Path, progress: Progress | None = None, **changes: Any) -> Any:
    """Card of a short training; changes are those of the job, of the kind's options or of the training's settings."""
    settings = {"steps": 10, "batch": 2, "crop": 24, "bf16": False}
    settings |= {name: changes.pop(name) for name in list(changes) if name in TrainingSettings.__dataclass_fields__}
    of_job = {name: changes.pop(name) for name in list(changes) if name in TrainingJob.__dataclass_fields__}
    changes = {"architecture": Architecture(8, (1, 2)), "denoise": False} | changes
    options = recipe_of(kind).options()
    options = replace(options, settings=replace(options.settings, **settings), **changes)
    return train(TrainingJob(**{"kind": kind, "data": (data,), "out": out, "options": options} | of_job), progress)


def state_of(path: Path) -> torch.Tensor:
    prior, _ = load_prior(path)
    assert isinstance(prior, WeightedKspacePrior)
    return torch.cat([value.flatten() for value in prior.model.state_dict().values()])


def test_raw_scans_go_through_the_gadgets(tmp_path: Path) -> None:
    path = tmp_path / "full.h5"
    simulation = simulate(FULL)
    write_raw(path, simulation)
    found = training_images((path,))
    assert found.shape == (2, 32, 32) and found.dtype == torch.complex64
    for image, truth in zip(found.abs().numpy(), read_truth(path)[0], strict=True):
        assert np.corrcoef(image.ravel(), truth.ravel())[0, 1] > 0.99


def test_volumes_give_their_readout_positions(tmp_path: Path) -> None:
    path = tmp_path / "volume.h5"
    write_raw(path, simulate(replace(FULL, matrix=(32, 24, 16), slices=1, object_scale=0.6)))
    found = training_images((path,))
    assert found.shape[1:] == (24, 16)
    assert 8 < len(found) < 32  # those beside the object are left out


def test_files_of_similar_matrix_are_cut_to_the_smallest(tmp_path: Path) -> None:
    shapes = [(2, 40, 36), (1, 36, 37), (1, 33, 40)]
    paths = tuple(tmp_path / f"{number}.npy" for number in range(3))
    for path, shape in zip(paths, shapes, strict=True):
        image = np.zeros(shape, np.complex64)
        image[:, shape[1] // 2, shape[2] // 2] = 1  # the centre stays the centre
        np.save(path, image)
    found = training_images(paths)
    assert found.shape == (4, 33, 36)
    assert found[:, 16, 18].tolist() == [1] * 4


def test_kspace_arrays_are_combined(tmp_path: Path) -> None:
    image = torch.from_numpy(images(1))
    maps = torch.linspace(0.2, 1, 32) * torch.tensor([1, 1j, -1])[:, None, None] + 0.1
    path = tmp_path / "kspace.npy"
    np.save(path, fft2c(maps * image).numpy())
    (found,) = training_images((path,), kspace=True)
    expected = torch.linalg.vector_norm(maps * image, dim=0)
    assert np.corrcoef(found.abs().numpy().ravel(), expected.numpy().ravel())[0, 1] > 0.99


@pytest.mark.slow
def test_weights_card_and_curve(array: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "p.safetensors"
    card = trained("wkgm", array, out, hold_out=1, licence="CC0-1.0")
    assert sorted(path.name for path in out.parent.iterdir()) == ["p.json", "p.png", "p.safetensors"]
    prior, read = load_prior(out)
    assert asdict(read) == json.loads(json.dumps(asdict(card))) | {"typical_gain": card.typical_gain}
    assert card.kind == "wkgm" and card.steps == 10 and card.licence == "CC0-1.0"
    assert card.training_data == "3 complex images of 32 x 32 of images.npy"
    assert all("held-out" in name for name in card.quality) and len(card.quality) == 5
    assert prior.phase_width == 24 and prior.typical_gain == card.typical_gain
    assert np.asarray(Image.open(out.with_suffix(".png"))).std() > 5


@pytest.mark.slow
def test_denoised_images_are_learnt_from(array: Path, tmp_path: Path) -> None:
    stages: list[str] = []
    card = trained(
        "wkgm", array, tmp_path / "p.safetensors", lambda stage, *_: stages.append(stage), denoise=True,
        denoising_steps=10,
    )  # fmt: skip
    assert list(dict.fromkeys(stages)) == ["learning the images' noise", "taking the noise from the images", "training"]
    assert "without their noise" in card.training_data


KILLED = """
import os, signal, sys
from priors.learning.trainer import Trainer
advance = Trainer._advance
def killed(trainer):
    advance(trainer)
    if trainer.step == 15:
        os.kill(os.getpid(), signal.SIGKILL)
Trainer._advance = killed
from pipelines.cli.entry import main
sys.argv = ["genrecon", *sys.argv[1:]]
main()
"""


@pytest.mark.slow
def test_a_killed_run_goes_on(array: Path, tmp_path: Path) -> None:
    """The state of before the kill is taken up, and the weights are those of a run that was not killed."""
    out, whole = tmp_path / "p.safetensors", tmp_path / "whole.safetensors"
    arguments = ["train", "wkgm", "--data", str(array), *TINY, "--steps", "20", "--save-every", "0"]
    killed = subprocess.run([sys.executable, "-c", KILLED, *arguments, "-o", str(out)], env=ENVIRONMENT, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert (tmp_path / "p.training" / "state.safetensors").exists() and not out.exists()
    steps: list[int] = []
    changes = {"steps": 20, "save_every_s": 0.0}
    trained("wkgm", array, out, lambda _stage, step, *_: steps.append(step), **changes)
    trained("wkgm", array, whole, **changes)
    assert steps == [20]
    assert not (tmp_path / "p.training").exists()
    assert torch.equal(state_of(out), state_of(whole))


@pytest.mark.slow
def test_two_processes_learn_together(array: Path, tmp_path: Path) -> None:
    out = tmp_path / "p.safetensors"
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launcher, "-m", "pipelines.cli", "train", "wkgm", "--data", str(array), "-o", str(out), *TINY]
    command += ["--device", "cpu"]  # each process would want a GPU of its own
    subprocess.run(command, env=ENVIRONMENT, check=True, capture_output=True, timeout=110)
    assert load_prior(out)[1].steps == 10


# --- command line ----------------------------------------------------------------------------------------------------


def command(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["train", *arguments])


@pytest.mark.slow
def test_settings_are_options_or_pairs(array: Path, tmp_path: Path) -> None:
    """All long options of earlier versions, and the same as name=value: the same weights."""
    out, same = tmp_path / "p.safetensors", tmp_path / "same.safetensors"
    result = command("wkgm", "--data", str(array), "-o", str(out), *TINY)
    assert result.exit_code == 0, result.output
    assert "error / sigma" in result.output and "-c svd_wkgm --set generative_recon.prior=" in result.output
    pairs = (
        "steps=10", "settings.batch=2", "crop=24", "architecture.base_channels=8", "multipliers=1,2", "denoise=false",
        "bf16=false",
    )  # fmt: skip
    result = command("wkgm", "--data", str(array), "-o", str(same), *(text for p in pairs for text in ("--set", p)))
    assert result.exit_code == 0, result.output
    assert torch.equal(state_of(out), state_of(same))


@pytest.mark.parametrize("kind", ["wkgm", "hkgm"])
def test_settings_are_listed(kind: str) -> None:
    result = command(kind, "--list")
    assert result.exit_code == 0
    assert {"settings.steps", "architecture.multipliers", "denoise"} <= set(result.output.split())
    assert ("patches" in result.output) == (kind == "hkgm")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["unet"], "there is no kind 'unet'; take wkgm, hkgm"),
        (["svd_wkgm"], "there is no kind 'svd_wkgm'; take wkgm, hkgm"),
        (["wkgm", "--stops", "3"], "setting 'stops' is unknown; near it is steps"),
        (["wkgm", "--set", "seed"], "--set is 'seed'; give name=value"),
        (["wkgm", "--steps", "many"], "setting 'steps' is 'many': invalid literal"),
        (["wkgm", "--set", "steps=0"], "setting 'steps' is '0': training: steps and batch: one or more"),
        (["wkgm", "--denoise=perhaps"], "setting 'denoise' is 'perhaps': give true or false"),
        (["wkgm", "--zoom", "0.8"], "setting 'zoom' is '0.8': give 2 values, by commas"),
        (["wkgm", "--scale", "nan,1"], "setting 'scale' is 'nan,1': augmentation: scale nan to 1.0 is not a range"),
        (["wkgm", "--set", "shading=-1"], "augmentation: shading -1.0 is not a finite number"),
        (["wkgm", "--denoising-steps", "0"], "setting 'denoising_steps' is '0'"),
        (["hkgm", "--power", "-1"], "setting 'power' is '-1'"),
        (["hkgm", "--patches", "wavelet"], "patches 'wavelet' is not one of image, kspace, hankel"),
        (["wkgm", "--licence", " "], "licence is empty"),
        (["wkgm"], "no data; give raw files"),
        (["wkgm", "--calibration"], "--calibration is for kinds that learn from one scan, not for wkgm"),
    ],
)
def test_wrong_settings(arguments: list[str], match: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    error = command(*arguments).exception
    assert isinstance(error, ReconError) and match in str(error) and "\n" not in str(error)
    assert not list(tmp_path.iterdir())


def test_kinds_that_can_be_trained() -> None:
    kinds = trainable_kinds()
    assert kinds[:2] == ("wkgm", "hkgm") and "svd_wkgm" not in kinds
    assert {"hggdp", "hggdp:published", "edaep:published"} <= set(kinds) and "edaep" not in kinds


# --- what is refused -------------------------------------------------------------------------------------------------


def undersampled(folder: Path) -> Path:
    path = folder / "under.h5"
    write_raw(path, simulate(replace(FULL, sampling="uniform", acceleration=2, calibration_lines=12)))
    return path


def with_gaps(folder: Path) -> Path:
    path = folder / "gaps.npy"
    kspace = np.ones((1, 3, 32, 32), np.complex64)
    kspace[..., 5, :] = 0
    np.save(path, kspace)
    return path


@pytest.mark.parametrize("kind", [undersampled, with_gaps])
def test_undersampled_scans_are_refused(kind, tmp_path: Path) -> None:
    with pytest.raises(ReconError, match="of its k-space is sampled"):
        training_images((kind(tmp_path),), kspace=True)


def test_weights_are_trained_further(array: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    weighting = Weighting(slope=2.0)
    trained("wkgm", array, first, weighting=weighting)
    card = trained(
        "wkgm", array, second, initial=first, steps=1, learning_rate=1e-12, architecture=Architecture(16, (1,))
    )
    assert card.options["weighting"]["slope"] == 2.0 and card.options["architecture"]["base_channels"] == 8
    torch.testing.assert_close(state_of(second), state_of(first), rtol=1e-2, atol=1e-4)  # bfloat16 on disk
    with pytest.raises(ReconError, match="weights of 'wkgm' cannot be trained further as 'vae'"):
        train(TrainingJob(kind="vae", data=(array,), out=second, initial=first))
    with pytest.raises(ReconError, match=r"none\.json"):
        trained("wkgm", array, second, initial=tmp_path / "none.safetensors")


def test_auxiliary_images_are_learnt_from_but_typical_of_nothing(array: Path, tmp_path: Path) -> None:
    other = tmp_path / "photographs.npy"
    np.save(other, np.full((6, 40, 24), 7, np.uint8))
    job = TrainingJob(kind="wkgm", data=(array,), out=tmp_path / "p.safetensors", auxiliary=(other,), hold_out=1)
    data = _training_set(job, recipe_of("wkgm"), None)
    assert data.images.shape == (9, 32, 32) and len(data.held_out) == 1 and data.auxiliary == 6
    torch.testing.assert_close(data.typical(data.images), normalised(torch.from_numpy(images()))[:3])
    assert data.images[0, 16, 16] == 1 and data.images[0, 16, 2] == 0  # continued by zeros
    for kind in ("hkgm", "unrolled"):
        with pytest.raises(ReconError, match=f"--also is for kinds that learn from images alone, not for {kind}"):
            train(replace(job, kind=kind))
    with pytest.raises(ReconError, match="--hold-out 4 of 4 images"):
        _training_set(replace(job, hold_out=4), recipe_of("wkgm"), None)


def test_progress_says_pace_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("pipelines.cli.train.time.monotonic", lambda: now[0])
    pace = _Pace()
    assert pace("training", 50, 1000) == "pace not known yet"  # a run that was taken up again
    now[0] += 25
    assert pace("training", 100, 1000) == "2 steps/s, 0:07:30 left"
    assert pace("denoising", 10, 100) == "pace not known yet"


@pytest.mark.slow
def test_bad_input(array: Path, tmp_path: Path) -> None:
    def refused(match: str, **changes) -> None:
        with pytest.raises(ReconError, match=match) as caught:
            trained("wkgm", changes.pop("data", array), changes.pop("out", tmp_path / "p.safetensors"), **changes)
        assert "\n" not in str(caught.value)

    refused("cannot be read as", data=tmp_path / "missing.npy")
    refused(r"no such file.*\.h5", data=tmp_path / "missing.h5")
    signed = tmp_path / "signed.npy"
    np.save(signed, images().real)
    refused("below zero, so they are no magnitudes", data=signed)
    words = tmp_path / "words.npy"
    np.save(words, np.full((1, 32, 32), "a"))
    refused("not finite complex or real", data=words)
    flat = tmp_path / "flat.npy"
    np.save(flat, images()[0])
    refused("needs --kspace", data=flat)
    refused(r"\.safetensors", out=tmp_path / "weights.pt")
    refused("hold out fewer", hold_out=4)
    refused("not there", device="abacus")
    dark = tmp_path / "dark.npy"
    np.save(dark, 0 * images())
    refused("empty", data=dark)
    big = tmp_path / "big.npy"
    np.save(big, images(size=48))
    with pytest.raises(ReconError, match="one matrix size"):
        training_images((array, big))
    with pytest.raises(ReconError, match="one matrix size"):
        training_images((big, array))
    blocked = tmp_path / "file"
    blocked.touch()
    refused("cannot be read or written", out=blocked / "p.safetensors")
    # A run's state is of that run alone.
    folder = tmp_path / "p.training"
    folder.mkdir()
    (folder / "state.safetensors").write_bytes(b"nonsense")
    refused("not a saved training state")
    assert not list(tmp_path.glob("p.safetensors*"))


# --- HKGM: one scan --------------------------------------------------------------------------------------------------


def coil_kspace(slices: int = 1, coils: int = 3, size: int = 40) -> np.ndarray:
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    maps = np.stack([np.exp(1j * place * x) * (1.2 + y * np.cos(place)) for place in range(coils)])
    return fft2c(torch.from_numpy(maps * images(slices, size)[:, None])).numpy().astype(np.complex64)


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    path = tmp_path / "scan.npy"
    np.save(path, coil_kspace())
    return path


@pytest.mark.slow
@pytest.mark.parametrize("patches", ["image", "kspace", "hankel"])
def test_a_prior_is_learnt_from_one_scan(patches: str, scan: Path, tmp_path: Path) -> None:
    card = trained("hkgm", scan, tmp_path / "h.safetensors", patches=patches)
    prior, read = load_prior(tmp_path / "h.safetensors")
    assert read.kind == card.kind == "hkgm"
    assert "1 complex images of 40 x 40 of scan.npy, 3 coils, patches of" in card.training_data
    assert card.options["architecture"]["parameterisation"] == ("fourier_conjugate" if patches == "image" else "kspace")
    assert prior.phase_width == (24 if patches == "image" else 0)
    assert 0.001 < card.options["architecture"]["sigma_data"] < 0.5


@pytest.mark.slow
def test_a_raw_scan_is_learnt_from(tmp_path: Path) -> None:
    path = tmp_path / "full.h5"
    write_raw(path, simulate(FULL))
    card = trained("hkgm", path, tmp_path / "h.safetensors", patches="hankel", window=4)
    assert card.training_data.startswith("2 complex images of 32 x 32 of full.h5, ")
    assert card.training_data.endswith("patches of the Hankel matrix with window 4")


@pytest.mark.slow
def test_the_centre_of_an_undersampled_scan_is_learnt_from(tmp_path: Path) -> None:
    raw, array = tmp_path / "under.h5", tmp_path / "under.npy"
    changes = {"matrix": (64, 64, 1), "sampling": "uniform", "acceleration": 2, "calibration_lines": 34, "slices": 1}
    write_raw(raw, simulate(replace(FULL, **changes)))
    kspace = coil_kspace(size=64)
    kspace[..., :14, :] = kspace[..., 50:, :] = 0
    np.save(array, kspace)
    for path, size in ((raw, 34), (array, 36)):
        card = trained("hkgm", path, tmp_path / "h.safetensors", calibration=True)
        assert f"images of {size} x {size} of {path.name}" in card.training_data
        assert "the fully sampled centre" in card.training_data


def test_scans_that_hkgm_cannot_learn_from(scan: Path, tmp_path: Path) -> None:
    def refused(match: str, path: Path, **changes) -> None:
        with pytest.raises(ReconError, match=match) as caught:
            trained("hkgm", path, tmp_path / "h.safetensors", **changes)
        assert "\n" not in str(caught.value)
        assert not list(tmp_path.glob("h.safe*"))

    one = tmp_path / "one.npy"
    np.save(one, coil_kspace(coils=1))
    refused("it has one coil; HKGM learns from multi-coil k-space, train wkgm", one)
    gaps = tmp_path / "gaps.npy"
    kspace = coil_kspace()
    kspace[..., ::2, :] = 0
    kspace[..., 10:30, :] = coil_kspace()[..., 10:30, :]
    np.save(gaps, kspace)
    refused(r"is sampled, of the centre 2\d x 40 samples fully; .* or with --calibration from that centre", gaps)
    refused(r"centre of its k-space is 2\d x 40 samples; a prior needs 32 lines", gaps, calibration=True)
    refused("window 60 does not fit", scan, patches="hankel", window=60)
    flat = tmp_path / "flat.npy"
    np.save(flat, images()[0])
    refused("is not k-space", flat)
    refused("cannot be read as", tmp_path / "missing.npy")


def test_hkgm_command_line(scan: Path, tmp_path: Path) -> None:
    result = command("hkgm", "--scan", str(scan), "-o", str(tmp_path / "h.safetensors"), *TINY)
    assert result.exit_code == 0, result.output
    assert "-c hkgm --set generative_recon.prior=" in result.output

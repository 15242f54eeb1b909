"""Weights and cards on disk: what is saved loads, what is broken is refused in one line."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from safetensors.torch import save as save_tensors

from priors.learning.cards import FORMAT, ModelCard, images_sha256
from priors.learning.checkpoints import read_checkpoint, write_checkpoint
from priors.learning.networks import Architecture, EdmDenoiser
from priors.registry import load_prior
from priors.signal.weighting import Weighting
from priors.weighted_kspace import WeightedKspaceOptions, WeightedKspacePrior

ARCHITECTURE = Architecture(8, (1, 2), groups=4, sigma_data=0.5)


def model_card() -> ModelCard:
    return ModelCard(
        kind="wkgm",
        options=WeightedKspaceOptions(ARCHITECTURE, Weighting(slope=3.0), 16, (0.001, 2.0)).as_table(),
        name="test",
        typical_gain=(0.2, 0.8),
        training_data="random numbers",
        training_data_sha256=images_sha256(torch.zeros(1, 2, 2)),
        steps=10,
        date="2026-01-31",
        licence="MIT",
        intended_use="tests",
        quality={"loss": 0.7},
    )


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    path = tmp_path / "prior.safetensors"
    write_checkpoint(path, EdmDenoiser(ARCHITECTURE).state_dict(), model_card())
    return path


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_there_and_back(tmp_path: Path, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model, path = EdmDenoiser(ARCHITECTURE), tmp_path / "prior.safetensors"
    write_checkpoint(path, model.state_dict(), model_card(), dtype)
    prior, card = load_prior(path)
    assert isinstance(prior, WeightedKspacePrior)
    assert json.loads(json.dumps(dataclasses.asdict(card))) == json.loads(json.dumps(dataclasses.asdict(model_card())))
    assert prior.weighting == Weighting(slope=3.0)
    assert prior.sigma_levels.values == (0.001, 2.0)
    assert prior.phase_width == 16 and prior.typical_gain == (0.2, 0.8)
    for name, value in prior.model.state_dict().items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, model.state_dict()[name].to(dtype).float())
    assert sorted(file.name for file in tmp_path.iterdir()) == ["prior.json", "prior.safetensors"]


def change_weights(path: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    """Change the tensors of a checkpoint and sign the result in the card, as a careless author would."""
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)
    card = json.loads(path.with_suffix(".json").read_text())
    card["weights_sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    path.with_suffix(".json").write_text(json.dumps(card))


def one_line(path: Path, match: str) -> None:
    with pytest.raises(ValueError, match=match) as caught:
        load_prior(path)
    assert "\n" not in str(caught.value)
    assert path.stem in str(caught.value)


NAME = "network.enter.weight"


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda tensors: tensors.pop(NAME), f"lacks tensor '{NAME}'"),
        (lambda tensors: tensors.update(extra=torch.zeros(1)), "unknown tensor 'extra'"),
        (lambda tensors: tensors.update({NAME: tensors[NAME][:4].clone()}), f"'{NAME}' is .*another architecture"),
        (lambda tensors: tensors[NAME][0, 0].fill_(torch.nan), f"'{NAME}' has values that are not finite"),
        (lambda tensors: tensors[NAME][0, 0].fill_(torch.inf), f"'{NAME}' has values that are not finite"),
        (lambda tensors: tensors[NAME][0, 0].fill_(-1e9), f"'{NAME}' has values above"),
        (lambda tensors: tensors.update({NAME: tensors[NAME].long()}), f"'{NAME}' is of type torch.int64"),
    ],
)
def test_weights_that_are_refused(checkpoint: Path, change: Any, match: str) -> None:
    change_weights(checkpoint, change)
    one_line(checkpoint, match)


def test_weights_that_are_not_those_of_the_card(checkpoint: Path) -> None:
    tensors = load_file(checkpoint)
    tensors[NAME] += 1e-3
    save_file(tensors, checkpoint)
    one_line(checkpoint, "not those of the card")


@pytest.mark.parametrize("length", [0, 4, 100, 5000, -1])
def test_truncated_file(checkpoint: Path, length: int) -> None:
    checkpoint.write_bytes(checkpoint.read_bytes()[:length])
    one_line(checkpoint, "truncated")


@pytest.mark.parametrize("zipped", [True, False])
def test_pickle_is_refused_unread(checkpoint: Path, zipped: bool) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return pytest.fail, ("the pickle was loaded",)

    torch.save({"weights": Trap()}, checkpoint, _use_new_zipfile_serialization=zipped)
    one_line(checkpoint, "a pickle")


@pytest.mark.parametrize("start", [b"\x80", b"PK"])
def test_weights_whose_length_reads_like_the_start_of_a_pickle(tmp_path: Path, start: bytes) -> None:
    """A file of safetensors begins with the length of its header, which may be any number of eight bytes each."""
    path, weights = tmp_path / "prior.safetensors", {"": torch.arange(3.0)}
    for length in range(8, 2**15, 8) if start == b"\x80" else range(18900, 19300, 8):
        weights = {"w" * length: torch.arange(3.0)}
        if save_tensors(weights, {"format": FORMAT}).startswith(start):
            break
    write_checkpoint(path, weights, model_card())
    assert path.read_bytes().startswith(start)
    _, found = read_checkpoint(path)
    assert {name: value.tolist() for name, value in found.items()} == {next(iter(weights)): [0, 1, 2]}


def test_missing_files(checkpoint: Path) -> None:
    with pytest.raises(ValueError, match=r"weights.pt: not a .safetensors file"):
        load_prior(checkpoint.with_name("weights.pt"))
    card = checkpoint.with_suffix(".json").read_bytes()
    checkpoint.unlink()
    one_line(checkpoint, "cannot be read")
    checkpoint.with_suffix(".json").unlink()
    one_line(checkpoint, r"prior\.json: cannot be read")
    checkpoint.with_suffix(".json").write_bytes(card[:50])
    one_line(checkpoint, "not JSON")


@pytest.mark.parametrize(
    ("entry", "value", "match"),
    [
        ("format", "genrecon prior 99", "format"),
        ("weights_sha256", "0", "weights_sha256"),
        ("steps", -1, "steps"),
        ("steps", "ten", "steps"),
        ("sigma_range", [0.5, 0.1], "sigma_range"),
        ("sigma_range", [0.1, float("nan")], "sigma_range"),
        ("sigma_range", 3, "sigma_range"),
        ("sigma_range", [0.1, "x"], "sigma_range"),
        ("date", "yesterday", "date"),
        ("licence", "", "licence"),
        ("kind", "telepathy", "there is no method 'telepathy'"),
        ("options", [], "options is not a table"),
        ("typical_gain", [0.5, 0.1], "typical_gain"),
        ("training_data_sha256", "Z" * 64, "training_data_sha256"),
        ("quality", {"psnr": "good"}, "quality"),
        ("surprise", 1, "unknown entry 'surprise'"),
        ("weighting", {"slope": 4.0, "r": 1.0, "s": 1.0}, "missing entry 'p'"),
        ("weighting", {"slope": "steep", "r": 1.0, "s": 1.0, "p": 0.5}, "weighting"),
        ("weighting", None, "weighting is not a table"),
        ("architecture", {**dataclasses.asdict(ARCHITECTURE), "base_channels": 10**9}, "base_channels"),
        ("architecture", {**dataclasses.asdict(ARCHITECTURE), "multipliers": 3}, "card"),
        ("architecture", {**dataclasses.asdict(ARCHITECTURE), "parameterisation": ["kspace"]}, "parameterisation"),
        ("architecture", {**dataclasses.asdict(ARCHITECTURE), "multipliers": [1, 1]}, "another architecture"),
        ("architecture", {**dataclasses.asdict(ARCHITECTURE), "multipliers": [1, 2, 2]}, "another architecture"),
    ],
)
def test_cards_that_are_refused(checkpoint: Path, entry: str, value: object, match: str) -> None:
    path = checkpoint.with_suffix(".json")
    card = json.loads(path.read_text())
    (card["options"] if entry in card["options"] else card)[entry] = value
    path.write_text(json.dumps(card))
    one_line(checkpoint, match)


def test_card_without_an_entry(checkpoint: Path) -> None:
    path = checkpoint.with_suffix(".json")
    card = json.loads(path.read_text())
    del card["licence"]
    path.write_text(json.dumps(card))
    one_line(checkpoint, "missing entry 'licence'")
    path.write_text("[" * 100000)
    one_line(checkpoint, "not JSON")
    path.write_text("[]")
    one_line(checkpoint, "format")


def test_what_would_not_load_is_not_saved(tmp_path: Path) -> None:
    path, model = tmp_path / "prior.safetensors", EdmDenoiser(ARCHITECTURE)
    with pytest.raises(ValueError, match="float64"):
        write_checkpoint(path, model.state_dict(), model_card(), torch.float64)
    with pytest.raises(ValueError, match="safetensors"):
        write_checkpoint(tmp_path / "prior.pt", model.state_dict(), model_card())
    with torch.no_grad():
        model.network.enter.weight[0] = torch.nan
    with pytest.raises(ValueError, match="not finite"):
        write_checkpoint(path, model.state_dict(), model_card())
    assert not list(tmp_path.iterdir())


def test_hash_tells_images_apart() -> None:
    images = torch.randn(2, 4, 3, dtype=torch.complex64)
    assert images_sha256(images) == images_sha256(images.clone())
    assert images_sha256(images.conj()) == images_sha256(images.conj().resolve_conj())
    others = [images.conj(), images.reshape(2, 3, 4), images + 1e-3]
    assert len({images_sha256(image) for image in [images, *others]}) == 4


def test_cards_of_the_format_before_still_load(checkpoint: Path) -> None:
    path = checkpoint.with_suffix(".json")
    card = json.loads(path.read_text())
    before = {name: value for name, value in card.items() if name not in ("kind", "options")} | card["options"]
    path.write_text(json.dumps(before | {"format": "genrecon prior 1"}))
    prior, found = load_prior(checkpoint)
    assert isinstance(prior, WeightedKspacePrior) and prior.weighting == Weighting(slope=3.0)
    assert found.kind == "wkgm" and found.options == card["options"]
    path.write_text(json.dumps(before | {"format": "genrecon prior 1", "typical_gain": None}))
    one_line(checkpoint, "typical_gain")

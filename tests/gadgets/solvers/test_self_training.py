"""`training=self`: when it learns, what it says, and the cache of what was learnt."""

from __future__ import annotations

import errno
import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from gadgets.generative_recon import GenerativeRecon
from gadgets.images import meta_of, meta_values
from gadgets.solvers import self_training
from gadgets.solvers.prior_cache import PriorCache
from gadgets.solvers.self_training import SelfTraining, protocol
from gadgets.stream import ReconError
from priors.learning import checkpoints
from priors.learning.networks import EdmDenoiser
from priors.learning.self_calibration import SelfCalibration
from priors.registry import load_prior
from tests.gadgets.test_generative_recon import buffered, run, warnings, weights
from tests.paths import ROOT

__all__ = ["weights"]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    changed = {"steps": 20, "batch": 1, "crop": 16, "bf16": False}
    settings = self_training.TrainingSettings(**changed)
    monkeypatch.setattr(self_training, "SETTINGS", settings)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))


@pytest.fixture
def no_learning(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError("it learns again")

    monkeypatch.setattr(self_training, "self_calibrated", fail)


def note(array: Any) -> str:
    return meta_values(meta_of(array.meta[0]), "GenreconTraining")[0]


def options(weights: Path, cache: Path, **changes: Any) -> dict[str, Any]:
    standard = {"method": "hkgm", "prior": weights, "steps": 8, "training": "self", "training_cache": cache}
    return standard | {"training_budget_s": 1000} | changes


@pytest.mark.slow
def test_the_second_scan_begins_with_what_the_first_one_learnt(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    header, items = buffered(matrix=(48, 48, 1))
    cache = tmp_path / "cache"
    (first,) = run(header, items, **options(weights, cache))
    assert note(first).startswith("20 steps on the scan in")
    assert "training=self" in meta_values(meta_of(first.meta[0]), "GenreconSettings")[0]
    (card_file,) = cache.glob("*.json")
    card = json.loads(card_file.read_text())
    assert card["name"] == "hkgm-self" and set(card["quality"]) == {
        "error of held-out samples before", "error of held-out samples"
    }  # fmt: skip
    monkeypatch.setattr(self_training, "self_calibrated", lambda *_, **__: pytest.fail("it learns again"))
    header, items = buffered(matrix=(48, 48, 1))
    (second,) = run(header, items, **options(weights, cache))
    assert note(second).startswith("learnt before, ")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["damaged", "other version", "card of other weights"])
def test_a_cache_that_cannot_be_read_is_learnt_anew(
    kind: str, weights: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    header, items = buffered(matrix=(48, 48, 1))
    cache = tmp_path / "cache"
    run(header, items, **options(weights, cache))
    (file,), (card,) = cache.glob("*.safetensors"), cache.glob("*.json")
    whole = file.read_bytes()
    if kind == "damaged":
        file.write_bytes(whole[:-100])
    elif kind == "other version":
        card.write_text(card.read_text().replace("genrecon prior 2", "genrecon prior 99"))
    else:
        card.write_text(card.read_text().replace('"weights_sha256": "', '"weights_sha256": "0')[:-1])
    header, items = buffered(matrix=(48, 48, 1))
    with caplog.at_level(logging.WARNING):
        (array,) = run(header, items, **options(weights, cache))
    (line,) = [record.getMessage() for record in caplog.records if "training_cache" in record.getMessage()]
    assert "it was removed" in line and "\n" not in line
    assert note(array).startswith("20 steps")
    assert load_prior(file)[1].name == "hkgm-self"


@pytest.mark.slow
def test_a_full_disk_costs_the_cache_only(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    header, items = buffered(matrix=(48, 48, 1))
    write = Path.write_bytes

    def full(path: Path, content: bytes) -> int:
        write(path, content[: len(content) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(checkpoints.Path, "write_bytes", full)
    with caplog.at_level(logging.WARNING):
        (array,) = run(header, items, **options(weights, tmp_path / "cache"))
    assert any("cannot be written to (No space left on device)" in record.getMessage() for record in caplog.records)
    assert note(array).startswith("20 steps") and abs(array.data).max() > 0
    assert not [path for path in (tmp_path / "cache").iterdir() if path.name != ".lock"]


@pytest.mark.slow
def test_a_cache_that_cannot_be_made_costs_the_cache_only(weights: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    header, items = buffered(matrix=(48, 48, 1))
    (array,) = run(header, items, **options(weights, tmp_path / "file" / "cache"))
    assert note(array).startswith("20 steps")


def test_scans_without_a_protocol_name_are_not_kept_where_nobody_asked_for_it(weights: Path, tmp_path: Path) -> None:
    header, items = buffered(matrix=(48, 48, 1))
    header.measurementInformation = None
    run(header, items, **options(weights, ""))
    assert not (tmp_path / "home").exists()


def test_learning_that_fails_is_told_and_the_scan_goes_on(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(self_training, "self_calibrated", fail)
    header, items = buffered(matrix=(48, 48, 1))
    (array,) = run(header, items, **options(weights, tmp_path / "cache"))
    assert "nothing was learnt from the scan (training=self): it failed: RuntimeError: out of memory" in warnings(array)
    assert "GenreconFallback" not in array.meta[0] and abs(array.data).max() > 0
    assert not (tmp_path / "cache").exists()


def test_full_scans_have_nothing_to_learn_for(weights: Path, tmp_path: Path, no_learning: None) -> None:
    header, items = buffered(sampling="full", acceleration=1)
    (array,) = run(header, items, **options(weights, tmp_path))
    assert "GenreconTraining" not in array.meta[0]


@pytest.mark.slow
def test_the_budget_is_shared_and_slices_that_were_reconstructed_are_learnt_from(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[tuple[float, int, int]] = []

    def learn(prior: Any, kspace: Any, *rest: Any, seconds: float, **_: Any) -> SelfCalibration:
        images = rest[2]
        looks.append((seconds, len(kspace), 0 if images is None else len(images)))
        return SelfCalibration(prior, False, 20, "0" * 64, 1.0, 2.0)

    monkeypatch.setattr(self_training, "self_calibrated", learn)
    header, items = buffered(slices=6)
    run(header, items, **options(weights, tmp_path, training_budget_s=40, steps=2))
    assert [(round(seconds), *rest) for seconds, *rest in looks] == [(20, 1, 0), (40, 1, 4)]
    looks.clear()
    header, items = buffered(slices=2, matrix=(48, 48, 1))
    run(header, items, **options(weights, tmp_path, training_budget_s=40, steps=2))
    assert [(round(seconds), *rest) for seconds, *rest in looks] == [(40, 1, 0)]
    looks.clear()
    header, items = buffered(slices=2, matrix=(40, 40, 1))
    run(header, items, **options(weights, tmp_path, training_budget_s=40, steps=2, time_budget_s=20))
    assert looks[0][0] <= 5


def test_what_scans_must_share() -> None:
    header, _ = buffered()
    found = protocol(header)
    assert found["protocol"] and found["encoding"].startswith("32 x 32 x 1, ")
    assert "patient" not in " ".join(found).lower()
    for changes in ({"coils": 6}, {"matrix": (48, 48, 1)}, {"acceleration": 3}):
        assert protocol(buffered(**changes)[0]) != found


@pytest.mark.parametrize("method", ["svd_wkgm", "cg_sense"])
def test_other_methods_do_not_learn(method: str) -> None:
    header, _ = buffered()
    with pytest.raises(ReconError, match=f"'training' means nothing to method {method}; it is for hkgm"):
        GenerativeRecon().configure(header, {"method": method, "training": "self"})


# --- the cache -------------------------------------------------------------------------------------------------------


def test_the_least_recently_used_priors_go(weights: Path, tmp_path: Path) -> None:
    prior, card = load_prior(weights)
    cache = PriorCache(tmp_path / "cache", entries=2)
    for number, key in enumerate("abc"):
        cache.put(key, prior.model, card)
        os.utime(tmp_path / "cache" / f"{key}.safetensors", (number, number))
        if key == "b":
            assert cache.get("a") is not None
    assert [cache.get(key) is not None for key in "abc"] == [True, False, True]
    assert sorted(path.name for path in (tmp_path / "cache").iterdir() if path.suffix) == [
        "a.json", "a.safetensors", "c.json", "c.safetensors"
    ]  # fmt: skip


WRITER = """
import sys
from pathlib import Path
import torch
from gadgets.solvers.prior_cache import PriorCache
from priors.registry import load_prior
prior, card = load_prior(Path(sys.argv[1]))
cache = PriorCache(Path(sys.argv[2]), entries=2)
for number in range(10):
    torch.nn.init.constant_(prior.model.network.leave.bias, float(sys.argv[3]) + number)
    cache.put("same", prior.model, card)
    assert cache.get("same") is not None
"""


@pytest.mark.slow
def test_two_processes_share_a_cache(weights: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    cache = PriorCache(tmp_path / "cache", entries=2)
    processes = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(weights), str(cache.folder), start], env=environment)
        for start in ("0", "100")
    ]
    seen = set()
    while any(process.poll() is None for process in processes):
        found = cache.get("same")
        if found is not None:
            model: EdmDenoiser = found[0].model
            seen.add(float(torch.atleast_1d(model.network.leave.bias)[0]))
    assert [process.returncode for process in processes] == [0, 0]
    assert len(seen) > 1
    assert not list(cache.folder.glob("*.part"))


def test_attributes_before_anything_was_learnt(weights: Path, tmp_path: Path) -> None:
    header, _ = buffered()
    gadget = GenerativeRecon()
    gadget.configure(header, {name: str(value) for name, value in options(weights, tmp_path).items()})
    prior, card = load_prior(weights)
    training = SelfTraining(gadget.parameters, header, prior, card, 1)
    assert training.prior is prior and training.note == ""

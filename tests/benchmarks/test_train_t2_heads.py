"""Training of all systems within a time budget, on tiny data; and their weights in the chain `generative`."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import train_t2_heads
from benchmarks.train_t2_heads import PLAN_FILE, PLANS, Plan, job_of, run, within_budget
from gadgets.images import meta_of, meta_values
from gadgets.stream import ReconError
from pipelines.train import TrainingJob
from priors.registry import METHODS, RECONSTRUCTIONS, generative_method, load_prior, with_variant
from tests.pipelines.test_generative_chain import images

TINY = {"settings.batch": "1", "warm_up": "0"}
OF_CONVOLUTIONS = {"crop": "16", "options.architecture.layers": "4", "options.architecture.width": "4"}
OF_UNET = {"crop": "16", "base_channels": "8", "multipliers": "1,2"}
OF_KIND = {
    "hggdp": OF_UNET,
    "ebm": OF_UNET,
    "ebm:published": {"crop": "16", "width": "2", "langevin_steps": "2"},
    "vae": {"crop": "16", "width": "4"},
    "vae:published": {"crop": "28", "width": "4"},
    "gan": {"crop": "16", "latents": "4", "width": "2"},
    "pixelcnn": {"crop": "16", "width": "4", "blocks": "1", "components": "2"},
    "glow": {"crop": "16", "architecture.width": "4", "levels": "2", "depth": "2"},
    "unrolled": {"denoiser.width": "4", "turns": "1"},
}


def tiny(name: str) -> dict[str, str]:
    found = OF_KIND.get(name) or OF_KIND.get(name.partition(":")[0]) or OF_CONVOLUTIONS
    return TINY | found


@pytest.fixture
def data(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    y, x = np.mgrid[-1 : 1 : 32 * 1j, -1 : 1 : 32 * 1j]
    discs = np.stack([np.hypot(y, x) < radius for radius in np.linspace(0.3, 0.8, 12)]).astype(np.float16)
    parts = np.stack([discs, 0.1 * discs], -1) + 0.02 * generator.standard_normal((*discs.shape, 2))
    np.save(tmp_path / "siat_t2_head.npy", parts.astype(np.float16))
    np.save(tmp_path / "photographs.npy", generator.integers(1, 255, (2, 64, 64), np.uint8))
    mask = np.zeros((32, 32), bool)
    mask[::2] = mask[10:22] = True
    np.savez(tmp_path / "masks.npz", poisson_4=mask)
    return tmp_path


def test_every_method_that_needs_weights_is_in_the_plan() -> None:
    needed = set()
    for name in METHODS:
        for variant in ("", *generative_method(name).variants):
            method = generative_method(with_variant(name, variant))
            needed.add(with_variant(name, variant) if method.recipe is not None else method.takes)
    assert needed - {"wkgm", "hkgm", ""} == {name for name in PLANS if name.partition(":")[0] not in RECONSTRUCTIONS}


@pytest.mark.slow
@pytest.mark.timeout(500)
def test_one_step_of_every_kind_gives_weights_that_reconstruct(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans = {name: replace(plan, settings={**tiny(name), **plan.settings}) for name, plan in PLANS.items()}
    monkeypatch.setattr(train_t2_heads, "PLANS", plans)
    out = tmp_path / "weights"
    out.mkdir()
    for name in PLANS:
        run(name, job_of(name, data, out, tmp_path / "cache", 1, "cpu"))
    for name in METHODS:
        for variant in ("", *generative_method(name).variants):
            method = generative_method(with_variant(name, variant))
            weights = out / f"{method.weights}.safetensors"
            if not weights.exists():
                assert method.weights in ("wkgm", "hkgm")
                continue
            check_faults(name, variant, weights, out)
            (image,) = images(method=name, variant=variant, prior=weights, steps=2)
            meta = meta_of(image.attribute_string)
            assert not meta_values(meta, "GenreconFallback"), (name, variant)
            assert meta_values(meta, "GenreconMethod") == [name] and image.data.max() > 0
    for weights_name in ("unrolled", "unrolled_ssdu"):
        (image,) = images(method="unrolled", prior=out / f"{weights_name}.safetensors")
        assert meta_values(meta_of(image.attribute_string), "GenreconTrainedFor")[0].startswith("poisson_4, R = ")


def check_faults(name: str, variant: str, weights: Path, folder: Path) -> None:
    """One clear line for weights that are not whole, of another kind, or asked for what they do not know."""
    prior, card = load_prior(weights, with_variant(name, variant))
    broken = folder / "broken.safetensors"
    broken.write_bytes(weights.read_bytes()[:-100])
    table = json.loads(weights.with_suffix(".json").read_text())
    broken.with_suffix(".json").write_text(json.dumps(table))
    foreign = folder / ("vae.safetensors" if card.kind != "vae" else "glow.safetensors")
    faults: list[tuple[dict[str, Any], str]] = [
        ({"prior": broken}, r"truncated or not a safetensors file|not those of the card beside them"),
        ({"prior": foreign}, r"weights of kind '\w+' are not for method|truncated"),
    ]
    if prior.sigma_levels:
        faults.append(({"prior": weights, "sigma_max": 90, "sampler": "annealed"}, "leave the range"))
    else:
        faults.append(({"prior": weights, "sampler": "few_step"}, "needs a prior that knows noise levels"))
    if prior.sigma_levels and not prior.sigma_levels.continuous:
        faults.append(({"prior": weights, "sampler": "predictor_corrector"}, "knows a range of noise levels"))
    if foreign.exists():
        for properties, message in faults:
            with pytest.raises(ReconError, match=message) as caught:
                images(method=name, variant=variant, **properties)
                pytest.fail(f"{name}:{variant} {properties}")
            assert "\n" not in str(caught.value), (name, variant)
    changed = folder / "changed.safetensors"
    changed.write_bytes(weights.read_bytes())
    changed.with_suffix(".json").write_text(json.dumps(table | {"options": {}}))
    with pytest.raises(ReconError, match="card: missing entry") as caught:
        images(method=name, variant=variant, prior=changed)
    assert "\n" not in str(caught.value)


class Clock:
    """Time that passes only when told."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_budget_is_shared_and_a_stopped_call_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock, trained = Clock(), []
    monkeypatch.setattr(train_t2_heads, "PLANS", {"a": Plan(1000), "b": Plan(10), "c": Plan(10, share=2.0)})
    paces = {"a": 0.1, "b": 0.1, "c": 10.0}
    asked: list[str] = []

    def make_job(name: str, out: Path, steps: int) -> TrainingJob:
        asked.append(name)
        return TrainingJob(kind=name, data=(), out=out / f"{name}.safetensors", options=steps)

    def pace(make: Any) -> float:
        clock.now += 5
        return paces[make(tmp_path, 1).kind]

    def train_one(name: str, job: TrainingJob) -> None:
        if name == "b" and not trained.count("b"):
            trained.append("b")
            raise ReconError("the loss is nan")
        trained.append(f"{name} {job.options}")
        clock.now += paces[name] * job.options
        job.out.write_bytes(b"")

    monkeypatch.setattr(train_t2_heads, "seconds_a_step", pace)
    monkeypatch.setattr(train_t2_heads, "run", train_one)
    with caplog.at_level(logging.INFO):
        missing = within_budget(["a", "b", "c"], 400, tmp_path, make_job, clock)
    assert missing == ["b", "c"]
    # A quarter of 400 s, less 5 s for the pace, nine tenths of it at 0.1 s a step.
    assert trained == ["a 855", "b"] and clock.now <= 400
    assert "b: the loss is nan" in caplog.text and "c: left out: " in caplog.text
    assert json.loads((tmp_path / PLAN_FILE).read_text())["a"] == {"steps": 855, "done": True}

    paces["c"] = 0.1
    assert within_budget(["a", "b", "c"], 400, tmp_path, make_job, clock) == []
    assert trained == ["a 855", "b", "b 40", "c 40"]  # b with the steps of before; at most four times the planned ones
    (tmp_path / "a.safetensors").unlink()  # lost: it is trained again, with the same steps
    assert within_budget(["a"], 400, tmp_path, make_job, clock) == [] and trained[-1] == "a 855"


@pytest.mark.slow
def test_the_pace_is_that_of_a_run_that_leaves_nothing(data: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setitem(train_t2_heads.PLANS, "vae", replace(PLANS["vae"], settings=tiny("vae")))

    def make_job(folder: Path, steps: int) -> TrainingJob:
        return job_of("vae", data, folder, tmp_path / "cache", steps, "cpu")

    before = set(tmp_path.rglob("*"))
    assert 0 < train_t2_heads.seconds_a_step(make_job) < 30
    new = set(tmp_path.rglob("*")) - before
    assert {path.name for path in new} == {"cache", "heads.npy"}

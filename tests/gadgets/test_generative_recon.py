"""The generative methods as a gadget: series, budget, fallback, and what is refused before the scan begins."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from gadgets import generative_recon
from gadgets.generative_recon import DEVIATION_SERIES, GenerativeRecon, expected_images
from gadgets.images import SCALE_RATIO, meta_of, meta_values
from gadgets.reconstruction import Reconstruction
from gadgets.solvers import generative_solver
from gadgets.stream import ReconError
from pipelines.chain import read_chain
from pipelines.simulation import SimulationSettings, simulate
from priors.learning.checkpoints import ModelCard, save_checkpoint, shipped_checkpoint
from priors.learning.networks import Architecture, EdmDenoiser
from priors.signal.weighting import Weighting

BASE = {"matrix": (32, 32, 1), "coils": 4, "sampling": "uniform", "acceleration": 2, "calibration_lines": 12}


def buffered(**changes):
    """Header and ReconData as they reach the reconstruction gadgets."""
    simulation = simulate(SimulationSettings(**{**BASE, **changes}))
    chain = read_chain("cg_sense")
    names = [node.names[0] for node in chain.nodes]
    del chain.nodes[names.index("reconstruction") :]
    return simulation.header, list(chain.run(simulation.header, simulation.acquisitions()))


def run(header, items, **properties):
    gadget = Reconstruction()
    gadget.configure(header, {f"generative_recon.{name}": str(value) for name, value in properties.items()})
    return list(gadget.process(iter(items)))


def warnings(array):
    return [text for meta in array.meta for text in meta_values(meta_of(meta), "GenreconWarning")]


@pytest.fixture
def weights(tmp_path):
    """A tiny prior of random weights, for the mechanics."""
    torch.manual_seed(0)
    architecture = Architecture(8, (1, 2), groups=4)
    card = ModelCard(
        name="tiny", architecture=architecture, weighting=Weighting(), phase_width=24, sigma_range=(4e-4, 0.6),
        typical_gain=(1e-3, 1e3), training_data="none", training_data_sha256="0" * 64, steps=0, date="2026-01-31",
        licence="MIT", intended_use="tests",
    )  # fmt: skip
    path = tmp_path / "tiny.safetensors"
    save_checkpoint(path, EdmDenoiser(architecture), card)
    return path


@pytest.mark.parametrize("method", ["wkgm", "svd_wkgm", "hkgm"])
def test_meta_says_how_the_image_was_made(method):
    header, items = buffered()
    (array,) = run(header, items, method=method)
    meta = meta_of(array.meta[0])
    assert meta_values(meta, "GenreconMethod") == [method]
    assert meta_values(meta, "GenreconDataConsistency")[0].startswith("sense (coil maps leave")
    assert int(meta_values(meta, "GenreconEvaluations")[0]) <= 30
    assert f"prior={'hkgm' if method == 'hkgm' else 'wkgm'}:" in meta_values(meta, "GenreconSettings")[0]
    assert array.headers[0, 0, 0].image_series_index == 1


def test_mean_and_standard_deviation_are_two_series():
    header, items = buffered(slices=2)
    arrays = run(header, items, method="svd_wkgm", samples=3, steps=8)
    assert [array.headers[0, 0, 0].image_series_index for array in arrays] == 2 * [1, 1 + DEVIATION_SERIES]
    (mean, deviation) = arrays[:2]
    assert meta_values(meta_of(deviation.meta[0]), "GenreconMethod") == ["svd_wkgm standard deviation"]
    scales = [float(meta_values(meta_of(array.meta[0]), SCALE_RATIO)[0]) for array in (mean, deviation)]
    assert scales[1] == pytest.approx(16 * scales[0])
    assert 0 < np.abs(deviation.data).mean() / scales[1] < 0.2 * np.abs(mean.data).mean() / scales[0]
    assert np.isrealobj(deviation.data) or not deviation.data.imag.any()


def test_images_together_are_those_apart():
    header, items = buffered(slices=3, contrasts=2)
    one = run(header, items, method="svd_wkgm", steps=8, noise_level=1)
    three = run(header, items, method="svd_wkgm", steps=8, noise_level=1, slices_at_once=4)
    assert len(one) == len(three) == 3
    for alone, together in zip(one, three, strict=True):
        peak = np.abs(alone.data).max()
        assert np.abs(alone.data - together.data).max() < 0.05 * peak
        assert [head.slice for head in alone.headers.flat] == [head.slice for head in together.headers.flat]


def test_volumes_go_through_hybrid_space():
    header, items = buffered(matrix=(16, 40, 32), calibration_lines=16, acceleration=2)
    (array,) = run(header, items, method="wkgm", steps=4)
    assert array.data.shape == (16, 40, 32, 1, 1, 1, 1)
    assert np.abs(array.data).max() > 0
    assert meta_values(meta_of(array.meta[0]), "GenreconDataConsistency")[0].startswith("sense (coil maps leave")


def test_meta_is_each_images_own(monkeypatch):
    header, items = buffered(slices=2)
    for item in items[1:]:
        item[0].data.data[:] = 0
        item[0].ref = None
    arrays = run(header, items, method="wkgm", steps=3, slices_at_once=2)
    assert "GenreconFallback" not in arrays[0].meta[0] and not any("no sample" in text for text in warnings(arrays[0]))
    assert "no sample was measured: the image is empty" in warnings(arrays[1])


def test_fully_sampled_data_are_left_alone():
    header, items = buffered(sampling="full", acceleration=1)
    (array,) = run(header, items, method="svd_wkgm")
    assert meta_values(meta_of(array.meta[0]), "GenreconDataConsistency")[0].startswith("complete")


def test_noise_level_of_the_noise_scan_is_taken():
    header, items = buffered(noise_scan=True, noise_level=0.01, coils=8, matrix=(64, 64, 1), calibration_lines=24)
    (auto,) = run(header, items, method="wkgm", steps=2)
    (given,) = run(header, items, method="wkgm", steps=2, noise_level=1)
    levels = [meta_values(meta_of(array.meta[0]), "GenreconNoiseLevel") for array in (auto, given)]
    assert levels[0] == levels[1]


# --- a scan never ends without an image ------------------------------------------------------------------------------


class Clock:
    """A clock that only evaluations of the prior move, by a second each."""

    def __init__(self, monkeypatch):
        self.now = 1000.0
        true = generative_solver.WeightedKspacePrior.denoise

        def denoise(prior, image, sigma):
            self.now += 1
            return true(prior, image, sigma)

        monkeypatch.setattr(generative_solver.WeightedKspacePrior, "denoise", denoise)
        monkeypatch.setattr(generative_solver, "time", self)
        monkeypatch.setattr(generative_recon, "time", self)

    def monotonic(self):
        return self.now


@pytest.mark.parametrize("fault", [RuntimeError("out of memory"), FloatingPointError("not finite"), MemoryError()])
def test_a_prior_that_fails_leaves_a_marked_classical_image(fault, monkeypatch):
    def failing(*_args, **_kwargs):
        raise fault

    monkeypatch.setattr(generative_solver, "generative", failing)
    header, items = buffered()
    (array,) = run(header, items, method="svd_wkgm")
    (classical,) = run(header, items, method="l1_wavelet")
    np.testing.assert_allclose(array.data, classical.data, rtol=1e-4, atol=1e-3)
    assert "reconstructed by l1_wavelet instead of svd_wkgm: the prior failed" in warnings(array)[0]
    assert meta_values(meta_of(array.meta[0]), "GenreconFallback") == ["l1_wavelet"]
    # The series stays one: method and settings are those asked for.
    assert meta_values(meta_of(array.meta[0]), "GenreconMethod") == ["svd_wkgm"]


def test_nan_weights_at_run_time_fall_back_too(weights, monkeypatch):
    header, items = buffered()
    gadget = GenerativeRecon()
    gadget.configure(header, {"method": "wkgm", "prior": str(weights)})
    torch.nn.init.constant_(next(iter(gadget._solver._prior.model.parameters())), math.nan)
    maps = Reconstruction.members["espirit"]()
    maps.configure(header, {})
    (array,) = gadget.process(maps.process(iter(items)))
    assert "not finite" in warnings(array)[0]
    assert np.isfinite(array.data).all() and np.abs(array.data).max() > 0


def test_when_all_fails_cg_sense_remains(monkeypatch):
    def failing(*_args, **_kwargs):
        raise RuntimeError("broken")

    monkeypatch.setattr(generative_solver, "generative", failing)
    monkeypatch.setattr(generative_solver, "l1_wavelet", failing)
    header, items = buffered()
    (array,) = run(header, items, method="wkgm")
    assert "reconstructed by cg_sense instead of wkgm" in warnings(array)[0]
    assert np.abs(array.data).max() > 0


def test_no_time_at_all(weights):
    header, items = buffered()
    (array,) = run(header, items, method="wkgm", prior=weights, time_budget_s=1e-6)
    assert "reconstructed by cg_sense instead of wkgm: " in warnings(array)[0]


def test_a_stop_in_the_last_steps_keeps_the_estimate(weights, monkeypatch):
    Clock(monkeypatch)
    header, items = buffered()
    (array,) = run(header, items, method="wkgm", prior=weights, steps=20, time_budget_s=15.5)
    assert warnings(array) == ["the sampler was stopped after 75% of its steps, to keep time_budget_s"]
    assert not meta_values(meta_of(array.meta[0]), "GenreconFallback")


def test_a_stop_in_the_first_steps_falls_back(weights, monkeypatch):
    Clock(monkeypatch)
    header, items = buffered()
    for budget, method in ((25, "l1_wavelet"), (8.5, "cg_sense")):  # as soon as it is seen that there is no time
        (array,) = run(header, items, method="wkgm", prior=weights, steps=60, time_budget_s=budget)
        assert warnings(array) == [f"reconstructed by {method} instead of wkgm: stopped by time_budget_s"]


def test_l1_wavelet_that_diverges_is_not_the_image(monkeypatch):
    def failing(*_args, **_kwargs):
        raise RuntimeError("broken")

    monkeypatch.setattr(generative_solver, "generative", failing)
    monkeypatch.setattr(generative_solver, "l1_wavelet", lambda k, maps, mask: math.nan * maps.sum(2))
    header, items = buffered()
    (array,) = run(header, items, method="wkgm")
    assert "reconstructed by cg_sense instead of wkgm" in warnings(array)[0]
    assert np.isfinite(array.data).all()


def test_later_slices_take_as_many_steps_as_there_is_time_for(weights, monkeypatch):
    clock = Clock(monkeypatch)
    header, items = buffered(slices=4)
    arrays = run(header, items, method="wkgm", prior=weights, steps=20, time_budget_s=60)
    assert warnings(arrays[0]) == ["the sampler was stopped after 75% of its steps, to keep time_budget_s"]
    for array in arrays[1:]:
        (text,) = warnings(array)
        assert text.endswith("steps instead of 20, to keep time_budget_s")
        assert int(text.split()[0]) >= 12
    assert clock.now - 1000 <= 60


def test_fewer_samples_before_fewer_steps(weights):
    solver = generative_solver.GenerativeSolver(
        GenerativeRecon.Parameters(method="wkgm", prior=str(weights), samples=8, steps=10), "GenerativeRecon", None
    )
    solver._step_s = 0.1
    cases = {8.9: (8, 10), 4.5: (4, 10), 1.2: (1, 10), 0.95: (1, 8)}
    for seconds, (samples, steps) in cases.items():
        settings, text = solver._affordable(seconds, 1)
        assert settings is not None
        assert (settings.samples, settings.steps) == (samples, steps)
        assert ("time_budget_s" in text) == ((samples, steps) != (8, 10))
    assert solver._affordable(0.5, 1)[0] is None


def test_images_announced_by_a_header():
    header, _ = buffered(slices=3, repetitions=2, averages=2)
    assert expected_images(header, averaged=True) == 6
    assert expected_images(header, averaged=False) == 12


def test_an_empty_slice_is_told():
    header, (item,) = buffered()
    item[0].data.data[:] = 0
    item[0].ref = None
    gadget = GenerativeRecon()
    gadget.configure(header, {"method": "wkgm"})
    item[0].coil_maps = np.ones((32, 32, 1, 4, 1, 1, 1), np.complex64)
    (array,) = gadget.process(iter([item]))
    assert warnings(array) == ["no sample was measured: the image is empty"]
    assert not array.data.any()


# --- what is refused before the scan begins --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("properties", "match"),
    [
        ({"prior": "/nowhere/prior.safetensors"}, r"'prior': /nowhere/prior\.safetensors cannot be read"),
        ({"sigma_max": 50}, "leave the range"),
        ({"sigma_min": 1e-6}, "leave the range"),
        ({"sigma_min": 0.2, "sigma_max": 0.1}, "not above sigma_min"),
        ({"steps": -3}, "'steps' is '-3'; it must be a whole number from 0 to 10000"),
        ({"steps": 10**6}, "from 0 to 10000"),
        ({"samples": 0}, "from 1 to 64"),
        ({"sampler": "best"}, "few_step"),
        ({"device": "abacus"}, "property 'device': device 'abacus' is not there"),
        ({"regularisation": 0.1}, "'regularisation' means nothing to method wkgm; it is for cg_sense, l1_wavelet"),
    ],
)
def test_wrong_properties(properties, match):
    header, _ = buffered()
    with pytest.raises(ReconError, match=match) as caught:
        run(header, [], method="wkgm", **properties)
    assert "\n" not in str(caught.value)


def test_properties_of_the_generative_methods_mean_nothing_to_the_others():
    header, _ = buffered()
    with pytest.raises(ReconError, match="'samples' means nothing to method cg_sense; it is for wkgm, svd_wkgm"):
        run(header, [], method="cg_sense", samples=4)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:1000])


def pickled(path: Path) -> None:
    torch.save({"weights": torch.zeros(2)}, path)


def of_another_architecture(path: Path) -> None:
    path.with_suffix(".json").write_text(path.with_suffix(".json").read_text().replace('"blocks": 1', '"blocks": 2'))


def without_card(path: Path) -> None:
    path.with_suffix(".json").unlink()


@pytest.mark.parametrize(
    ("spoil", "match"),
    [(cut, "truncated"), (pickled, "pickle"), (of_another_architecture, "architecture"), (without_card, "json")],
)
def test_spoilt_weights(spoil, match, weights):
    spoil(weights)
    header, _ = buffered()
    with pytest.raises(ReconError, match=match) as caught:
        run(header, [], method="wkgm", prior=weights)
    assert "\n" not in str(caught.value) and "property 'prior'" in str(caught.value)


def test_shipped_weights_are_small():
    assert sum(shipped_checkpoint(name).stat().st_size for name in ("wkgm", "hkgm")) <= 15e6

"""The generative methods as a gadget: series, budget, fallback, and what is refused before the scan begins."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from gadgets import generative_recon
from gadgets.generative_recon import GenerativeRecon
from gadgets.images import SCALE_RATIO, meta_of, meta_values
from gadgets.outputs import STANDARD_DEVIATION
from gadgets.reconstruction import Reconstruction
from gadgets.solvers import budget
from gadgets.solvers import generative as solvers
from gadgets.solvers.budget import expected_images
from gadgets.stream import ReconError
from pipelines.chain import read_chain
from pipelines.simulation import SimulationSettings, simulate
from priors.learning.cards import ModelCard
from priors.learning.checkpoints import shipped_checkpoint, write_checkpoint
from priors.learning.networks import Architecture, EdmDenoiser
from priors.signal.weighting import Weighting
from priors.weighted_kspace import WeightedKspaceOptions, WeightedKspacePrior

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
        kind="wkgm", options=WeightedKspaceOptions(architecture, Weighting(), 24, (4e-4, 0.6)).as_table(), name="tiny",
        typical_gain=(1e-3, 1e3), training_data="none", training_data_sha256="0" * 64, steps=0, date="2026-01-31",
        licence="MIT", intended_use="tests",
    )  # fmt: skip
    path = tmp_path / "tiny.safetensors"
    write_checkpoint(path, EdmDenoiser(architecture).state_dict(), card)
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


@pytest.mark.slow
def test_mean_and_standard_deviation_are_two_series():
    header, items = buffered(slices=2)
    arrays = run(header, items, method="svd_wkgm", samples=2, steps=8)
    assert [array.headers[0, 0, 0].image_series_index for array in arrays] == 2 * [1, 1 + STANDARD_DEVIATION.series]
    (mean, deviation) = arrays[:2]
    assert meta_values(meta_of(deviation.meta[0]), "GenreconMethod") == ["svd_wkgm standard deviation"]
    scales = [float(meta_values(meta_of(array.meta[0]), SCALE_RATIO)[0]) for array in (mean, deviation)]
    assert scales[1] == pytest.approx(16 * scales[0])
    assert 0 < np.abs(deviation.data).mean() / scales[1] < 0.2 * np.abs(mean.data).mean() / scales[0]
    assert np.isrealobj(deviation.data) or not deviation.data.imag.any()


@pytest.mark.slow
def test_images_together_are_those_apart(weights):
    """Also samples: their noise is that of the slice, whatever stands beside it."""
    header, items = buffered(slices=3, contrasts=2)
    changes = {"method": "svd_wkgm", "prior": weights, "steps": 4, "samples": 2, "noise_level": 1}
    one = run(header, items, **changes)
    together = run(header, items, **changes, slices_at_once=4)
    assert len(one) == len(together) == 6  # means and standard deviations of three slices
    for alone in one:
        (found,) = (array for array in together if _place(array) == _place(alone))
        assert found.data.shape == alone.data.shape
        assert np.abs(alone.data - found.data).max() < 1e-3 * np.abs(alone.data).max()


def _place(array):
    return [(head.image_series_index, head.slice, head.contrast) for head in array.headers.flat]


def test_slices_have_samples_of_their_own(weights):
    """Two slices of the same data: their samples differ, those of the first one do not change."""
    header, items = buffered(slices=2)
    items[1][0].data.data[:], items[1][0].ref.data[:] = items[0][0].data.data, items[0][0].ref.data
    changes = {"method": "wkgm", "prior": weights, "steps": 4, "samples": 2, "noise_level": 1, "intensity": 0}
    _, first, _, second = run(header, items, **changes)
    _, alone = run(header, items[:1], **changes)
    np.testing.assert_allclose(alone.data, first.data, rtol=1e-3, atol=1e-6)
    assert np.linalg.norm(second.data - first.data) > 0.2 * np.linalg.norm(first.data)


def test_volumes_go_through_hybrid_space(weights):
    header, items = buffered(matrix=(16, 40, 32), calibration_lines=16, acceleration=2)
    (array,) = run(header, items, method="wkgm", prior=weights, steps=3)
    assert array.data.shape == (16, 40, 32, 1, 1, 1, 1)
    assert np.abs(array.data).max() > 0
    assert meta_values(meta_of(array.meta[0]), "GenreconDataConsistency")[0].startswith("sense (coil maps leave")


def test_meta_is_each_images_own(weights):
    header, items = buffered(slices=2)
    for item in items[1:]:
        item[0].data.data[:] = 0
        item[0].ref = None
    arrays = run(header, items, method="wkgm", prior=weights, steps=3, slices_at_once=2)
    assert "GenreconFallback" not in arrays[0].meta[0] and not any("no sample" in text for text in warnings(arrays[0]))
    assert "no sample was measured: the image is empty" in warnings(arrays[1])


def test_fully_sampled_data_are_left_alone():
    header, items = buffered(sampling="full", acceleration=1)
    (array,) = run(header, items, method="svd_wkgm")
    assert meta_values(meta_of(array.meta[0]), "GenreconDataConsistency")[0].startswith("complete")


@pytest.mark.parametrize("noise_scan", [True, False])
def test_noise_level_of_the_noise_scan_is_taken(noise_scan, weights):
    """Behind NoiseAdjustGadget it is 1; noise that happens to be like it elsewhere stays what was estimated."""
    header, items = buffered(noise_scan=noise_scan, noise_level=0.01, coils=8, matrix=(64, 64, 1), calibration_lines=24)
    if not noise_scan:
        scale = 1.1 / float(note(run(header, items, method="wkgm", prior=weights, steps=2), "GenreconNoiseLevel"))
        for buffer in (items[0][0].data, items[0][0].ref):
            buffer.data[:] *= scale
    level = float(note(run(header, items, method="wkgm", prior=weights, steps=2), "GenreconNoiseLevel"))
    assert level == pytest.approx(1.0 if noise_scan else 1.1, rel=1e-3)


@pytest.mark.parametrize("average", [True, False])
def test_property_noise_level_is_that_of_one_readout(average, weights):
    """As for noise maps: the mean of four has half of it."""
    header, items = buffered(averages=4)
    arrays = run(header, items, method="wkgm", prior=weights, steps=2, noise_level=0.5, average=average)
    assert float(note(arrays, "GenreconNoiseLevel")) == pytest.approx(0.25 if average else 0.5)


def test_generative_methods_have_noise_maps(weights):
    header, items = buffered(noise_scan=True, noise_level=0.01)
    arrays = run(header, items, method="wkgm", prior=weights, steps=2, output="magnitude,snr,gfactor", replicas=3)
    assert [array.headers.flat[0].image_series_index for array in arrays] == [1, 601, 701]
    assert not any("no noise maps" in text for array in arrays for text in warnings(array))
    assert all(np.isfinite(array.data).all() and np.abs(array.data).max() > 0 for array in arrays)


def note(arrays, name):
    """Meta attribute of the first image."""
    return meta_values(meta_of(arrays[0].meta[0]), name)[0]


SMOOTH = """
from priors.prior import Prior, SigmaLevels

class Smooth(Prior):
    sigma_levels = SigmaLevels((1e-3, 1.0), continuous=True)

    def denoise(self, m, sigma):
        near = sum(m.roll(step, axis) for step in (-1, 1) for axis in (-2, -1)) / 4
        return m + (near - m) * 0.1
"""


def test_a_prior_of_a_file_of_ones_own(tmp_path):
    path = tmp_path / "smooth.py"
    path.write_text(SMOOTH)
    header, items = buffered()
    arrays = run(header, items, method="custom", prior=f"{path}:Smooth", steps=4)
    assert "sampler=few_step" in note(arrays, "GenreconSettings") and "smooth.py:Smooth" in note(
        arrays, "GenreconSettings"
    )
    assert not any("instead of" in text for text in warnings(arrays[0])) and np.abs(arrays[0].data).max() > 0
    for changes, match in (
        ({"method": "wkgm"}, "names code, which method custom takes"),
        ({"prior": f"{path}:Smoth"}, "has no 'Smoth'"),
        ({"prior": ""}, "needs a prior: weights"),
    ):
        with pytest.raises(ReconError, match=match) as caught:
            run(header, items, **{"method": "custom", "prior": f"{path}:Smooth"} | changes)
        assert "property 'prior'" in str(caught.value) and "\n" not in str(caught.value)


# --- a scan never ends without an image ------------------------------------------------------------------------------


class Clock:
    """A clock that only evaluations of the prior move, by a second each."""

    def __init__(self, monkeypatch):
        self.now = 1000.0
        true = WeightedKspacePrior.denoise

        def denoise(prior, image, sigma):
            self.now += 1
            return true(prior, image, sigma)

        monkeypatch.setattr(WeightedKspacePrior, "denoise", denoise)
        for module in (budget, solvers, generative_recon):
            monkeypatch.setattr(module, "time", self)

    def monotonic(self):
        return self.now


@pytest.mark.parametrize("fault", [RuntimeError("out of memory"), FloatingPointError("not finite"), MemoryError()])
def test_a_prior_that_fails_leaves_a_marked_classical_image(fault, monkeypatch):
    def failing(*_args, **_kwargs):
        raise fault

    monkeypatch.setattr(solvers, "reconstruct", failing)
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

    monkeypatch.setattr(solvers, "reconstruct", failing)
    monkeypatch.setattr(solvers, "l1_wavelet", failing)
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
    for seconds, method in ((25, "l1_wavelet"), (8.5, "cg_sense")):  # as soon as it is seen that there is no time
        (array,) = run(header, items, method="wkgm", prior=weights, steps=60, time_budget_s=seconds)
        assert warnings(array) == [f"reconstructed by {method} instead of wkgm: stopped by time_budget_s"]


def test_l1_wavelet_that_diverges_is_not_the_image(monkeypatch):
    def failing(*_args, **_kwargs):
        raise RuntimeError("broken")

    monkeypatch.setattr(solvers, "reconstruct", failing)
    monkeypatch.setattr(solvers, "l1_wavelet", lambda k, maps, mask: math.nan * maps.sum(2))
    header, items = buffered()
    (array,) = run(header, items, method="wkgm")
    assert "reconstructed by cg_sense instead of wkgm" in warnings(array)[0]
    assert np.isfinite(array.data).all()


@pytest.mark.slow
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
        ({"sampler": "best"}, "one of 'auto', 'few_step', 'predictor_corrector'"),
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

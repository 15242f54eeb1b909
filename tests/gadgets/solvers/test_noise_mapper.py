"""Noise maps of the gadget: formulas and replicas, known and unknown noise, time, and images that stay as they are."""

from __future__ import annotations

import numpy as np
import pytest

from gadgets.generative_recon import GenerativeRecon
from gadgets.images import SCALE_RATIO, meta_of, meta_values
from gadgets.outputs import GFACTOR, MAGNITUDE, SNR
from gadgets.reconstruction import Reconstruction
from gadgets.solvers import noise_maps
from gadgets.solvers.budget import ScanBudget
from gadgets.stream import ReconError
from tests.gadgets.scans import buffered

SCAN = {"noise_level": 0.01, "noise_scan": True, "calibration_lines": 12}


def maps(header, items, **properties):
    """Values (image, y, x) and metas by the name of the output."""
    gadget = Reconstruction()
    own = {"output": "magnitude,snr,gfactor", "method": "cg_sense"} | properties
    names = {f"generative_recon.{name}": str(value) for name, value in own.items()}
    gadget.configure(header, names | {"espirit.crop": "0.5"})
    found = {MAGNITUDE: [], SNR: [], GFACTOR: []}
    metas = {MAGNITUDE: [], SNR: [], GFACTOR: []}
    for array in gadget.process(iter(items)):
        series = array.headers.flat[0].image_series_index // 100 * 100
        (output,) = (output for output in found if output.series == series)
        metas[output] += [meta_of(text) for text in array.meta]
        for meta, place in zip(metas[output][-len(array.meta) :], np.ndindex(*array.data.shape[4:]), strict=True):
            ratio = float(meta_values(meta, SCALE_RATIO)[0])
            found[output].append(np.abs(array.data[:, :, 0, 0][(..., *place)]).T / ratio)
    return {output: np.array(values) for output, values in found.items()}, metas


def test_snr_and_g_belong_together():
    """SNR = image / (g x noise of g = 1), noise of 1 behind a noise scan."""
    header, items = buffered(**SCAN)
    values, metas = maps(header, items)
    assert [meta_values(metas[output][0], SCALE_RATIO) for output in (SNR, GFACTOR)] == [["10"], ["1000"]]
    acceleration = float(meta_values(metas[GFACTOR][0], "GenreconAcceleration")[0])
    assert acceleration == pytest.approx(32 / 22, rel=1e-3)  # every second line and 12 in the middle
    g, snr = values[GFACTOR][0], values[SNR][0]
    inside = snr > 10
    assert inside.sum() > 200
    expected = values[MAGNITUDE][0] / (g * np.sqrt(acceleration))
    np.testing.assert_allclose(snr[inside], expected[inside], rtol=1e-3)
    assert 0.99 < np.median(g[inside]) < 1.5
    assert meta_values(metas[SNR][0], "GenreconNoiseMaps")[0].startswith("analytic; noise of 4 replicas is ")


def test_replicas_agree_with_the_formula():
    header, items = buffered(**SCAN)
    formula, _ = maps(header, items)
    replicas, metas = maps(header, items, replicas=150)
    assert meta_values(metas[GFACTOR][0], "GenreconNoiseMaps") == ["150 replicas"]
    inside = formula[SNR][0] > 10
    ratio = replicas[GFACTOR][0][inside] / formula[GFACTOR][0][inside]
    assert np.sqrt((ratio**2).mean()) == pytest.approx(1, abs=0.03)
    assert np.std(ratio) < 0.08  # of 150 replicas: 0.058


def test_images_are_those_without_maps():
    header, items = buffered(slices=2, **SCAN)
    with_maps, _ = maps(header, items, replicas=3, slices_at_once=2)
    without, _ = maps(header, items, output="magnitude")
    np.testing.assert_array_equal(with_maps[MAGNITUDE], without[MAGNITUDE])
    one_by_one, _ = maps(header, items, replicas=3)
    np.testing.assert_allclose(with_maps[GFACTOR], one_by_one[GFACTOR], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("method", ["grappa", "zero_filled", "l1_wavelet"])
def test_other_methods_have_maps(method):
    header, items = buffered(**SCAN)
    values, metas = maps(header, items, method=method, **({"replicas": 8} if method == "l1_wavelet" else {}))
    how = meta_values(metas[GFACTOR][0], "GenreconNoiseMaps")
    assert how == ["8 replicas" if method == "l1_wavelet" else "analytic"]
    inside = values[SNR][0] > 20
    assert inside.any()
    if method == "zero_filled":  # the noise of 22 of 32 lines, with no aliasing resolved
        np.testing.assert_allclose(values[GFACTOR][0], 22 / 32, atol=1e-3)


def test_volumes_have_maps():
    header, items = buffered(matrix=(8, 24, 16), acceleration=2, **SCAN)
    values, metas = maps(header, items, method="zero_filled")
    assert values[GFACTOR].shape == (1, 24, 8)  # the first partition
    acceleration = float(meta_values(metas[GFACTOR][0], "GenreconAcceleration")[0])
    assert acceleration > 1.2
    np.testing.assert_allclose(values[GFACTOR], 1 / acceleration, atol=1e-3)
    assert not any("GenreconWarning" in meta for meta in metas[SNR])


def test_averages_count():
    header, items = buffered(averages=4, **SCAN)
    once, _ = maps(*buffered(**SCAN))
    four, _ = maps(header, items)
    inside = once[SNR][0] > 20
    assert np.median(four[SNR][0][inside] / once[SNR][0][inside]) == pytest.approx(2, rel=0.03)
    assert np.median(four[GFACTOR][0][inside] / once[GFACTOR][0][inside]) == pytest.approx(1, rel=0.02)


def test_without_known_noise_there_is_no_snr_map():
    """Never one of an estimated noise: the images come with a warning, and g with another."""
    header, items = buffered(noise_level=0.01)
    values, metas = maps(header, items)
    assert len(values[SNR]) == 0 and len(values[MAGNITUDE]) == len(values[GFACTOR]) == 1
    assert noise_maps.NO_NOISE in meta_values(metas[MAGNITUDE][0], "GenreconWarning")
    assert noise_maps.NOT_WHITE in meta_values(metas[GFACTOR][0], "GenreconWarning")
    known, metas = maps(header, items, noise_level=0.01)
    assert len(known[SNR]) == 1 and "GenreconWarning" not in metas[MAGNITUDE][0]


@pytest.mark.parametrize(
    ("calibration", "method", "doubted"),
    [("separate", "grappa", True), ("separate", "cg_sense", False), ("embedded", "grappa", False)],
)
def test_kernels_from_noisy_maps_are_told(calibration, method, doubted):
    _, metas = maps(*buffered(acceleration=2, calibration=calibration, **SCAN), method=method)
    for output in (SNR, GFACTOR):
        assert (noise_maps.FROM_MAPS in meta_values(metas[output][0], "GenreconWarning")) == doubted
    assert "GenreconWarning" not in metas[MAGNITUDE][0]


def test_maps_that_fail_cost_no_image(monkeypatch):
    header, items = buffered(**SCAN)

    def fails(*_, **__):
        raise RuntimeError("out of order")

    monkeypatch.setattr(noise_maps, "sense_covariance", fails)
    values, metas = maps(header, items)
    assert len(values[MAGNITUDE]) == 1 and not len(values[SNR]) and not len(values[GFACTOR])
    assert meta_values(metas[MAGNITUDE][0], "GenreconWarning") == [
        "no noise maps (snr, gfactor): RuntimeError: out of order"
    ]


def test_maps_are_left_out_where_the_time_is_for_images(monkeypatch):
    header, items = buffered(slices=2, **SCAN)
    monkeypatch.setattr(ScanBudget, "spare", lambda *_: 0.0)
    values, metas = maps(header, items, time_budget_s=3600)
    assert len(values[MAGNITUDE]) == 2 and not len(values[SNR])
    assert all(meta_values(meta, "GenreconWarning") == [noise_maps.NO_TIME] for meta in metas[MAGNITUDE])


def test_time_for_maps_is_what_images_to_come_do_not_need():
    budget = ScanBudget(100.0, announced=10, known=10)
    budget.spent(2, 10.0)
    assert budget.spare(2, at_hand=0) == pytest.approx((90 - 1.5 * 8 * 5) * 2 / 10)
    budget.spent_on_more(40.0)
    assert budget.spare(2, at_hand=0) == 0
    assert ScanBudget(float("inf"), 1).spare(1, 0) == float("inf")


def test_conjugate_gradients_that_stop_early_have_replicas():
    """Then there is less noise than the formula of the exact solution has."""
    header, items = buffered(**SCAN, coils=4, acceleration=2)
    _, metas = maps(header, items, iterations=1, regularisation=1e-6)
    assert meta_values(metas[GFACTOR][0], "GenreconNoiseMaps") == [f"{noise_maps.REPLICAS} replicas"]


def test_a_prior_with_settings_of_its_own_has_maps():
    """Settings of a sampler are compared, whatever they hold."""
    header, items = buffered(**SCAN, acceleration=1)
    values, _ = maps(header, items, method="wkgm", steps=2, samples=2, replicas=3)
    assert len(values[SNR]) == len(values[GFACTOR]) == 1


@pytest.mark.parametrize(
    ("properties", "text"),
    [
        ({"replicas": "8"}, "property 'replicas' is for output snr and gfactor"),
        ({"method": "cg_sense", "noise_level": "1"}, "property 'noise_level' means nothing to method cg_sense"),
    ],
)
def test_properties_of_maps_mean_nothing_without_them(properties, text):
    with pytest.raises(ReconError, match=text):
        GenerativeRecon().configure(buffered()[0], properties)

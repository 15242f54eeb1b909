"""Reconstruction as a gadget: ReconData in, image arrays out."""

from __future__ import annotations

import shutil

import ismrmrd
import numpy as np
import pytest
from gadgetron.types import ImageArray, ReconData
from gadgetron.types.recon_data import ReconBit

from gadgets.buffers import averaged, filled, replace_data
from gadgets.generative_recon import GenerativeRecon
from gadgets.images import SCALE_RATIO, meta_of, meta_values
from gadgets.pixel_scale import FULL_SCALE
from gadgets.reconstruction import Reconstruction
from gadgets.stream import ReconError
from tests.gadgets.scans import buffered, run


def test_empty_bits_of_other_encoding_spaces_are_skipped():
    header, (item,) = buffered()
    header.encoding.append(header.encoding[0])
    empty = ReconBit(replace_data(item[0].data, np.zeros((0,) * 7, np.complex64)))
    (result,) = run(header, [ReconData([item[0], empty])], Reconstruction)
    assert isinstance(result, ImageArray)


def reconstructed(**properties):
    header, (item,) = buffered()
    (array,) = run(header, [item], Reconstruction, **{f"generative_recon.{n}": v for n, v in properties.items()})
    return array


@pytest.mark.slow
@pytest.mark.parametrize("method", ["zero_filled", "cg_sense", "l1_wavelet", "tv", "grappa", "sake", "lindberg"])
@pytest.mark.parametrize(
    "scan",
    [
        {},
        {"matrix": (12, 24, 16), "calibration_lines": 10},
        {"calibration": "separate", "matrix": (33, 40, 1)},
    ],
    ids=["2D", "3D", "separate calibration"],
)
def test_every_method_comes_near_the_fully_sampled_image(method, scan):
    few = {"sake": {"iterations": 15}, "lindberg": {"iterations": 10}}.get(method, {})
    wanted = {"method": method, "intensity": 0, **few}

    def image(**changes):
        header, items = buffered(**{**scan, **changes})
        (array,) = run(header, items, Reconstruction, **{f"generative_recon.{n}": v for n, v in wanted.items()})
        assert meta_values(meta_of(array.meta[0]), "GenreconMethod") == [wanted["method"]]
        return np.abs(array.data)

    found = image()
    wanted = {"method": "cg_sense", "intensity": 0}
    full = image(sampling="full", acceleration=1, calibration="none")
    wanted = {"method": "zero_filled", "intensity": 0}
    empty = np.linalg.norm(image() - full)
    # Of regular lines alone, methods without calibration cannot know more; those with it must.
    alone = method in {"sake", "lindberg"} and scan.get("calibration") == "separate"
    bound = 1.01 if method == "zero_filled" or alone else 0.95 if method == "lindberg" else 0.75
    assert np.linalg.norm(found - full) < bound * empty


@pytest.mark.parametrize(
    ("properties", "message"),
    [
        ({"method": "grappa", "kernel": 1}, "gadget GenerativeRecon: method grappa: grappa: the kernel must be from 2"),
        ({"method": "sake", "rank": 9999}, "gadget GenerativeRecon: method sake: low rank: rank 9999 is not from 1"),
        ({"method": "grappa", "iterations": 3}, "'iterations' means nothing to method grappa; it is for cg_sense, "),
        ({"method": "cg_sense", "window": 4}, "'window' means nothing to method cg_sense; it is for sake, wkgm"),
    ],
)
def test_options_that_do_not_fit_a_method(properties, message):
    with pytest.raises(ReconError, match=message):
        reconstructed(**properties)


@pytest.mark.parametrize("method", ["cg_sense", "l1_wavelet", "lindberg"])
def test_denoising_is_a_factor_of_the_regularisation(method):
    common = {"method": method, "intensity": 0, "iterations": 4}
    stronger = reconstructed(**common, regularisation=0.05, denoising=2)
    assert np.array_equal(stronger.data, reconstructed(**common, regularisation=0.2).data)
    assert not np.array_equal(stronger.data, reconstructed(**common, regularisation=0.05).data)
    assert "regularisation=0.2" in meta_values(meta_of(stronger.meta[0]), "GenreconSettings")[0]


@pytest.mark.skipif(not shutil.which("bart"), reason="needs the program bart: install it to run this test")
def test_bart_agrees_with_our_wavelets():
    ours, theirs = (np.abs(reconstructed(method=m, intensity=0).data) for m in ("l1_wavelet", "bart_pics"))
    assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] > 0.99
    np.testing.assert_allclose(np.linalg.norm(theirs), np.linalg.norm(ours), rtol=0.05)


def test_bart_that_is_missing_or_fails(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ReconError, match="method bart_pics needs the program bart; install the BART toolbox"):
        reconstructed(method="bart_pics")
    program = tmp_path / "bart"
    program.write_text("#!/bin/sh\necho first >&2\necho ERROR: no memory >&2\nexit 3\n")
    program.chmod(0o755)
    with pytest.raises(ReconError, match="method bart_pics: bart failed with exit code 3: ERROR: no memory"):
        reconstructed(method="bart_pics")


def test_image_array_as_gadgetron_expects_it():
    array = reconstructed()
    assert array.data.shape == (32, 32, 1, 1, 1, 1, 1)
    assert array.data.dtype == np.complex64
    assert array.headers.shape == (1, 1, 1)
    meta = meta_of(array.meta[0])
    assert meta_values(meta, "encoding") == ["0"]
    assert len(meta_values(meta, "encoding_FOV")) == len(meta_values(meta, "recon_FOV")) == 3
    assert meta_values(meta, "GenreconMethod") == ["l1_wavelet"]
    assert "map_sets=1" in meta_values(meta, "GenreconSettings")[0]
    assert array.headers[0, 0, 0].image_type == ismrmrd.IMTYPE_MAGNITUDE
    assert array.headers[0, 0, 0].image_series_index == 1


def test_intensity_is_set_by_the_first_image():
    array = reconstructed(intensity=1000)
    assert np.percentile(np.abs(array.data), 99.9) == pytest.approx(1000, rel=0.05)
    scale = float(meta_values(meta_of(array.meta[0]), SCALE_RATIO)[0])
    unscaled = reconstructed(intensity=0)
    np.testing.assert_allclose(array.data / scale, unscaled.data, rtol=1e-4, atol=1e-6)


def test_a_brighter_later_image_does_not_overflow():
    header, (dim,) = buffered()
    bright = ReconData(
        [ReconBit(replace_data(b.data, 100 * b.data.data), replace_data(b.ref, 100 * b.ref.data)) for b in dim]
    )
    first, second = run(header, [dim, bright], Reconstruction)
    assert np.abs(second.data).max() <= FULL_SCALE
    scales = [float(meta_values(meta_of(array.meta[0]), SCALE_RATIO)[0]) for array in (first, second)]
    np.testing.assert_allclose(
        np.abs(second.data) / scales[1], 100 * np.abs(first.data) / scales[0], rtol=1e-3, atol=0.1
    )


def test_zero_kspace_gives_a_zero_image():
    header, (item,) = buffered()
    dark = ReconData([ReconBit(replace_data(item[0].data, 0 * item[0].data.data), item[0].ref)])
    (array,) = run(header, [dark], Reconstruction, **{"generative_recon.fill_calibration": "false"})
    assert not array.data.any()


def test_nan_is_refused():
    header, (item,) = buffered()
    item[0].data.data[3, 16] = np.nan
    with pytest.raises(ReconError, match="NaN"):
        run(header, [item], Reconstruction)


def test_maps_are_asked_for():
    header, (item,) = buffered()
    with pytest.raises(ReconError, match=r"put gadgets\.espirit Espirit before it"):
        run(header, [item], GenerativeRecon)


def test_unknown_member_property_names_what_there_is():
    gadget = Reconstruction()
    with pytest.raises(ReconError, match=r"unknown property 'espirt\.kernel'.*coil_compression"):
        gadget.configure(None, {"espirt.kernel": "4"})
    with pytest.raises(ReconError, match="gadget Espirit: unknown property 'kernle'"):
        gadget.configure(None, {"espirit.kernle": "4"})


def test_averages_are_averaged_over_what_was_measured():
    _, (item,) = buffered(averages=3, sampling="full", acceleration=1)
    data, headers, merged, counts = averaged(item[0].data.data, item[0].data.headers)
    assert merged == counts.max() == 3
    assert data.shape[5] == headers.shape[3] == 1
    np.testing.assert_allclose(data[..., 0, 0], item[0].data.data.mean(axis=5)[..., 0], atol=1e-6)
    partly = item[0].data.data.copy()
    partly[:, 5, :, :, :, 1:] = 0
    data, *_ = averaged(partly, item[0].data.headers)
    np.testing.assert_allclose(data[:, 5, :, :, 0, 0], partly[:, 5, :, :, 0, 0], atol=1e-6)
    assert averaged(data, headers)[2] == 1  # there is no other average left


def test_calibration_lines_fill_only_what_is_missing():
    data = np.zeros((2, 3, 1, 1, 1, 1, 1), np.complex64)
    ref = np.ones_like(data)
    data[:, 1] = 5
    np.testing.assert_array_equal(filled(data, ref)[0, :, 0, 0, 0, 0, 0], [1, 5, 1])
    assert filled(data, ref[:, :2]) is data

"""Correction of surface-coil shading in a scan: which images get it, and what they say."""

from __future__ import annotations

import numpy as np
import pytest

from gadgets.images import SCALE_RATIO, SHADING, meta_of, meta_values
from gadgets.outputs import GFACTOR, IMAGINARY, MAGNITUDE, PHASE, REAL, SNR
from gadgets.reconstruction import Reconstruction
from gadgets.shading import NOT_FOUND
from tests.gadgets.scans import buffered, run

SCAN = {"matrix": (64, 64, 1), "sampling": "full", "acceleration": 1, "noise_level": 0.002, "noise_scan": True}


def images(header, items, shading: str, **properties):
    """Pixels (image, RO, E1, E2) before the pixel scale, and the meta attributes, by series."""
    settings = {"generative_recon.method": "cg_sense", "espirit.crop": 0.5, "generative_recon.shading": shading}
    found: dict[int, list] = {}
    for array in run(header, items, Reconstruction, **{**settings, **properties}):
        pixels = np.moveaxis(array.data[:, :, :, 0].reshape(*array.data.shape[:3], -1, order="F"), -1, 0)
        for one, head, text in zip(pixels, array.headers.ravel(order="F"), array.meta, strict=True):
            meta = meta_of(text)
            found.setdefault(head.image_series_index, []).append((one / float(meta[SCALE_RATIO]), meta))
    return found


def test_magnitudes_are_corrected_and_all_else_is_as_measured():
    header, items = buffered(**SCAN)
    outputs = {"generative_recon.output": "magnitude,phase,real,imaginary,snr,gfactor"}
    off, on = (images(header, items, choice, **outputs) for choice in ("off", "fit"))
    for output in (PHASE, REAL, IMAGINARY, SNR, GFACTOR):
        ((before, _),), ((after, meta),) = (found[1 + output.series] for found in (off, on))
        np.testing.assert_array_equal(before, after)
        assert SHADING not in meta
    ((before, old),), ((after, meta),) = (found[1 + MAGNITUDE.series] for found in (off, on))
    assert meta[SHADING].startswith("fit, gain 0.") and SHADING not in old
    assert "shading=fit" in meta["GenreconSettings"] and "shading" not in old["GenreconSettings"]
    signal = np.abs(before) > 0.3 * np.abs(before).max()
    gain = np.abs(after)[signal] / np.abs(before)[signal]
    assert gain.min() < 0.9 and gain.max() > 1.1


def test_all_images_of_a_slice_share_one_field():
    header, items = buffered(**SCAN, slices=2, slice_gap_mm=40.0, repetitions=2, contrasts=2)
    before, after = (images(header, items, choice)[1] for choice in ("off", "fit"))
    assert len(before) == len(after) == 8
    told = [meta[SHADING] for _, meta in after]
    assert len(set(told)) == 2 and all(told.count(text) == 4 for text in told)
    gains: dict[str, np.ndarray] = {}
    for (old, _), (new, meta) in zip(before, after, strict=True):
        signal = np.abs(old) > 0.3 * np.abs(old).max()
        gain = np.where(signal, np.abs(new) / np.maximum(np.abs(old), 1e-12), 0)
        first = gains.setdefault(meta[SHADING], gain)
        both = (first > 0) & (gain > 0)
        np.testing.assert_allclose(gain[both], first[both], rtol=1e-4)


def test_the_standard_deviation_is_corrected_as_its_mean():
    header, items = buffered(**{**SCAN, "sampling": "uniform", "acceleration": 2})
    options = {"generative_recon.method": "wkgm", "generative_recon.steps": 3, "generative_recon.samples": 2}
    off, on = (images(header, items, choice, **options) for choice in ("off", "fit"))
    signal = np.abs(off[1][0][0]) > 0.3 * np.abs(off[1][0][0]).max()
    signal &= off[101][0][0] != 0  # two samples may round to the same value
    ratios = [np.abs(on[series][0][0])[signal] / np.abs(off[series][0][0])[signal] for series in (1, 101)]
    np.testing.assert_allclose(ratios[0], ratios[1], rtol=1e-3)
    assert on[101][0][1][SHADING] == on[1][0][1][SHADING]


@pytest.mark.parametrize("noise", [False, True], ids=["empty", "noise"])
def test_an_image_without_signal_stays_as_it_is_and_says_so(noise):
    header, items = buffered(**{**SCAN, "noise_scan": False})
    rng = np.random.default_rng(0)
    for item in items:
        for buffer in (item[0].data, item[0].ref):
            if buffer is not None:
                shape = buffer.data.shape
                buffer.data[:] = (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)) if noise else 0
    before, after = (images(header, items, choice)[1] for choice in ("off", "fit"))
    np.testing.assert_array_equal(before[0][0], after[0][0])
    assert SHADING not in after[0][1] and NOT_FOUND in meta_values(after[0][1], "GenreconWarning")
    assert NOT_FOUND not in meta_values(before[0][1], "GenreconWarning")

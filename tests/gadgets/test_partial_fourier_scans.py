"""Partial Fourier in a scan: found by the samples that came, filled in on demand, said in the images."""

from __future__ import annotations

import re

import numpy as np
import pytest
from gadgetron.types import ReconData

from gadgets.images import PARTIAL_FOURIER, PARTIAL_FOURIER_DIRECTION, SCALE_RATIO, meta_of, meta_values
from gadgets.partial_fourier import acquired_part
from gadgets.reconstruction import Reconstruction
from pipelines.chain import read_chain
from pipelines.simulation import SimulationSettings, simulate
from pipelines.simulation.sampling import poisson, random_lines
from tests.gadgets.scans import BASE, buffered, run


def part_of(mask, partitions: bool = False):
    """Buffer [RO, E1, E2, CHA] of noise where a mask (E1, RO), in 3D (E1, E2), is true."""
    rng = np.random.default_rng(0)
    mask = np.broadcast_to(mask[None], (16, *mask.shape)) if partitions else mask.T[:, :, None]
    noise = rng.standard_normal((2, *mask.shape, 3)).astype(np.float32)
    return ((noise[0] + 1j * noise[1]) * mask[..., None]).astype(np.complex64)


def rows(chosen, size: int = 64):
    mask = np.zeros((size, 32), bool)
    mask[chosen] = True
    return mask


CENTRE = list(range(26, 38))
NOT_PARTIAL = {
    "complete": rows(slice(None)),
    "every third line": rows(slice(1, None, 3)),
    "every fourth line, embedded calibration": rows([*range(3, 64, 4), *CENTRE]),
    "a few outer lines never came": rows(slice(3, None)),
    "less resolution": rows(slice(10, 55)),
    "random lines": random_lines((64, 32), 3, centre=12),
    "an elliptical shutter": np.hypot(*np.meshgrid(np.linspace(-1, 1, 32), np.linspace(-1, 1, 64))) < 1,
    "nothing": rows([]),
    "no centre": rows(slice(40, None)),
    "calibration lines alone": rows(CENTRE),
}
PARTIAL = {
    "lower": (rows(slice(24, None)), (24, 64)),
    "upper": (rows(slice(0, 41)), (0, 41)),
    "every third line": (rows([*range(23, 64, 3), *CENTRE]), (23, 63)),
    "seven eighths": (rows(slice(8, None)), (8, 64)),
    "less resolution": (rows(slice(22, 60)), (22, 60)),
    "random lines": (random_lines((64, 32), 2, centre=16) & rows(slice(20, None)), (20, 64)),
}


@pytest.mark.parametrize("name", NOT_PARTIAL)
def test_no_side_is_missing(name):
    assert acquired_part(part_of(NOT_PARTIAL[name])) is None


@pytest.mark.parametrize("name", PARTIAL)
def test_a_missing_side_of_the_phase_encoding_is_found(name):
    mask, (first, stop) = PARTIAL[name]
    lines, readout = acquired_part(part_of(mask))
    assert lines.first == pytest.approx(first, abs=1) and lines.stop == pytest.approx(stop, abs=1)
    assert not readout.partial


def test_elliptical_shutters_of_volumes():
    """Corners are no side: with one cut off along E1 that one is found, else none."""
    e2, e1 = np.meshgrid(np.linspace(-1, 1, 40), np.linspace(-1, 1, 64))
    shutter = np.hypot(e1, e2) < 1
    assert acquired_part(part_of(shutter, partitions=True)) is None
    assert acquired_part(part_of(shutter & poisson((64, 40), 3, centre=12), partitions=True)) is None
    readout, lines, partitions = acquired_part(part_of(shutter & (e1 > -0.3), partitions=True))
    assert (lines.partial, readout.partial, partitions.partial) == (True, False, False)


@pytest.mark.slow
@pytest.mark.parametrize(("sampling", "share"), [("full", 5 / 8), ("uniform", 6 / 8)])
@pytest.mark.parametrize("method", ["cg_sense", "grappa"])
def test_the_missing_side_is_filled_in_on_demand(sampling, share, method):
    changes = {"matrix": (64, 64, 1), "sampling": sampling, "acceleration": 1 if sampling == "full" else 2}
    scan = SimulationSettings(**{**BASE, **changes, "partial_fourier": share})
    truth = simulate(scan).truth[0, 0]
    header, items = buffered(**changes, partial_fourier=share)
    errors = {}
    for choice in ("off", "auto", "pocs", "homodyne"):
        (array,) = run(header, items, Reconstruction, **_options(method, choice))
        meta = meta_of(array.meta[0])
        image = np.abs(array.data[:, :, 0, 0, 0, 0, 0]).T / float(meta[SCALE_RATIO])
        errors[choice] = np.linalg.norm(image - truth) / np.linalg.norm(truth)
        made = {"off": "not filled in", "auto": "filled in by pocs, trust 0."}.get(choice, f"filled in by {choice}")
        percent = re.match(r"phase encoding (\d+) %: ", meta[PARTIAL_FOURIER])
        assert percent and int(percent[1]) == pytest.approx(100 * share, abs=2)
        assert made in meta[PARTIAL_FOURIER]
        assert meta[PARTIAL_FOURIER_DIRECTION] == "PHASE"
        assert ("partial_fourier" in meta["GenreconSettings"]) == (choice != "off")
    assert errors["pocs"] == errors["auto"] < 0.6 * errors["off"]
    assert errors["homodyne"] < 0.6 * errors["off"]


def _options(method, choice):
    return {"generative_recon.method": method, "generative_recon.partial_fourier": choice, "espirit.crop": 0.5}


def test_complete_scans_stay_as_they_are():
    header, items = buffered()
    (off,) = run(header, items, Reconstruction, **_options("cg_sense", "off"))
    (on,) = run(header, items, Reconstruction, **_options("cg_sense", "auto"))
    np.testing.assert_array_equal(off.data, on.data)
    assert PARTIAL_FOURIER not in meta_of(on.meta[0])


@pytest.mark.parametrize(("size", "echo"), [((64, 48, 1), 0.7), ((24, 32, 16), 0.75)])
def test_an_asymmetric_echo_is_found_behind_the_removal_of_oversampling(size, echo):
    """Its unmeasured samples are no zeros any more."""
    changes = {"matrix": size, "sampling": "full", "acceleration": 1, "asymmetric_echo": echo}
    truth = simulate(SimulationSettings(**{**BASE, **changes})).truth[0, 0]
    header, items = buffered(**changes)
    errors = []
    for choice in ("off", "pocs"):
        (array,) = run(header, items, Reconstruction, **_options("cg_sense", choice))
        meta = meta_of(array.meta[0])
        image = np.abs(array.data[..., 0, 0, 0, 0]).T / float(meta[SCALE_RATIO])
        errors.append(np.linalg.norm(image.reshape(truth.shape) - truth) / np.linalg.norm(truth))
        assert meta[PARTIAL_FOURIER].startswith("readout 7") and meta[PARTIAL_FOURIER_DIRECTION] == "FREQUENCY"
    assert errors[1] < 0.75 * errors[0]


@pytest.mark.parametrize("oversampling", [1.0, 2.0])
@pytest.mark.parametrize("noise", [0.005, 0.05])
@pytest.mark.parametrize(("low", "high", "partial"), [(0.3, 0.15, True), (0.2, 0.2, False), (0.0, 0.3, True)])
def test_readouts_padded_with_zeros(oversampling, noise, low, high, partial):
    """Zeros on both sides are less resolution; an echo that is asymmetric before is so behind them, too."""
    settings = {**BASE, "matrix": (64, 32, 1), "sampling": "full", "acceleration": 1, "noise_level": noise}
    simulation = simulate(SimulationSettings(**settings, readout_oversampling=oversampling))

    def padded():
        for line in simulation.acquisitions():
            count = line.data.shape[1]
            line.data[:, : round(low * count)] = line.data[:, count - round(high * count) :] = 0
            yield line

    chain = read_chain("cg_sense").up_to_buffers()
    (item,) = (item for item in chain.run(simulation.header, padded()) if isinstance(item, ReconData))
    found = acquired_part(item.bits[0].data.data[..., 0, 0, 0])
    assert (found is not None) == partial
    if found:
        lines, readout = found
        assert not lines.partial and readout.partial
        assert readout.first == pytest.approx(64 * low, abs=1) and readout.stop == pytest.approx(64 - 64 * high, abs=1)


@pytest.mark.slow
def test_two_axes_of_a_volume():
    changes = {"matrix": (16, 48, 32), "sampling": "full", "acceleration": 1}
    changes |= {"partial_fourier": 0.75, "partial_fourier_e2": 0.7}
    truth = simulate(SimulationSettings(**{**BASE, **changes})).truth[0, 0]
    header, items = buffered(**changes)
    errors = []
    for choice in ("off", "homodyne"):
        (array,) = run(header, items, Reconstruction, **_options("cg_sense", choice))
        meta = meta_of(array.meta[0])
        image = np.abs(array.data[..., 0, 0, 0, 0]).T / float(meta[SCALE_RATIO])
        errors.append(np.linalg.norm(image - truth) / np.linalg.norm(truth))
        assert meta[PARTIAL_FOURIER_DIRECTION] == ["PHASE", "SLICE_SELECT"]
    assert errors[1] < 0.9 * errors[0]
    assert "homodyne cannot" in meta_values(meta, "GenreconWarning")[0] and "by pocs" in meta[PARTIAL_FOURIER]


def test_too_narrow_a_centre_is_told():
    header, items = buffered(partial_fourier=0.55, sampling="full", acceleration=1)
    (array,) = run(header, items, Reconstruction, **_options("cg_sense", "auto"))
    meta = meta_of(array.meta[0])
    assert "too few to know the phase; the missing side stays zero" in meta_values(meta, "GenreconWarning")[0]
    assert "not filled in" in meta[PARTIAL_FOURIER]


@pytest.mark.slow
def test_generative_methods_fill_it_in_themselves():
    """Unless asked: conjugate symmetry then has its part in the image."""
    header, items = buffered(matrix=(64, 64, 1), partial_fourier=0.7, sampling="full", acceleration=1)
    arrays = {
        choice: run(header, items, Reconstruction, **_options("wkgm", choice), **{"generative_recon.steps": 3})[0]
        for choice in ("off", "auto", "pocs")
    }
    notes = {choice: meta_of(array.meta[0])[PARTIAL_FOURIER] for choice, array in arrays.items()}
    assert notes["off"].endswith("left to the prior") and notes["auto"] == notes["off"]
    assert "filled in by pocs" in notes["pocs"]
    np.testing.assert_array_equal(arrays["off"].data, arrays["auto"].data)
    assert np.abs(arrays["pocs"].data - arrays["off"].data).max() > 0.01 * np.abs(arrays["off"].data).max()

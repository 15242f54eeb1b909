"""Benchmark cases: scaling, names, masks, bad input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gadgets.stream import ReconError
from pipelines.evaluation.cases import BenchmarkCases
from tests import raw_files
from tests.raw_files import kspace as case_kspace

SIZE = 48


def test_cases_are_scaled_named_and_reproducible(cases, images):
    assert [(case.slice, case.noise) for case in cases] == [(0, 0.0), (0, 0.01), (1, 0.0), (1, 0.01)]
    assert all(case.reference.max() == pytest.approx(1) for case in cases)
    assert len({case.name for case in cases}) == 4
    again = BenchmarkCases((images,), coils=4, patterns=("uniform:2",), noise=(0.01,), slices=(1,)).cases()[0]
    assert again.identity == cases[3].identity
    noise = (cases[3].measured() - cases[2].measured())[:, cases[3].mask]
    assert noise.real.std() == pytest.approx(0.01, rel=0.1)
    assert not cases[3].measured()[:, ~cases[3].mask].any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": (Path("/nowhere.npy"),)}, r"/nowhere\.npy: cannot be read as \.npy"),
        ({"slices": (7,)}, r"there is no slice 7; it has 2"),
        ({"kspace": True}, "51% of its k-space is sampled"),  # two images are no k-space of two coils
        ({"patterns": ("poisson",)}, "--pattern is 'poisson'; give PATTERN:ACCELERATION"),
        ({"patterns": ("spiral:4",)}, "--pattern is 'spiral:4'"),
        ({"patterns": ("poisson:0.5",)}, "1 to 64"),
        ({"noise": (-1.0,)}, "--noise must be 0 or more"),
        ({"masks": ("/nowhere.npz",)}, r"/nowhere\.npz: cannot be read as masks"),
    ],
)
def test_wrong_input(images, changes, message):
    chosen = BenchmarkCases(**{"data": (images,), **changes})
    with pytest.raises(ReconError, match=message) as caught:
        chosen.cases()
    assert "\n" not in str(caught.value)


def test_kspace_arrays(tmp_path):
    kspace = np.stack([case_kspace(), case_kspace()[:, ::-1]])
    np.save(tmp_path / "slices.npy", kspace)
    np.save(tmp_path / "one.npy", kspace[1])
    (case,) = BenchmarkCases((tmp_path / "one.npy",), kspace=True).cases()
    first, second = BenchmarkCases((tmp_path / "slices.npy",), kspace=True).cases()
    np.testing.assert_array_equal(case.kspace, second.kspace)
    assert first.kspace.shape == (4, 64, 128) and (first.kspace != second.kspace).any()
    kspace[1, :, ::2] = 0
    np.save(tmp_path / "slices.npy", kspace)
    with pytest.raises(ReconError, match=r"slice 1: 50% of its k-space is sampled, .* a benchmark needs fully sampled"):
        BenchmarkCases((tmp_path / "slices.npy",), kspace=True).cases()
    assert len(BenchmarkCases((tmp_path / "slices.npy",), kspace=True, slices=(0,)).cases()) == 1


def test_averages_are_one_slice_and_slices_are_several(tmp_path):
    one, other = case_kspace(), case_kspace(objects=(raw_files.BALL,))
    text = raw_files.header(limits={"average": (0, 1, 0), "slice": (1, 2, 1)})
    found = [
        raw_files.line(factor * data[:, step], step, average=average, slice=number)
        for average, factor in enumerate((0.5, 1.5))
        for step in range(64)
        for number, data in ((1, one), (2, other))
    ]
    averages = BenchmarkCases((raw_files.write(tmp_path / "averages.h5", (text, found)),)).cases()
    plain = [line for number, data in ((0, one), (1, other)) for line in raw_files.lines(data, slice=number)]
    expected = BenchmarkCases((raw_files.write(tmp_path / "plain.h5", (raw_files.header(), plain)),)).cases()
    for case, reference in zip(averages, expected, strict=True):
        np.testing.assert_allclose(case.reference, reference.reference, atol=1e-5)


def test_masks_of_files(images, tmp_path):
    full, small = np.ones((SIZE, SIZE), bool), np.ones((8, 8), bool)
    np.savez(tmp_path / "masks.npz", full=full, small=small, none=~full)
    names = [f"{tmp_path / 'masks.npz'}:{name}" for name in ("full", "small", "other", "none")]
    (case,) = BenchmarkCases((images,), masks=(names[0],), slices=(0,)).cases()
    assert case.mask_name == "full" and case.mask.all()
    for name, message in zip(
        names[1:], ["no mask of it is", "it has no mask 'other'", "mask none is empty"], strict=True
    ):
        with pytest.raises(ReconError, match=message):
            BenchmarkCases((images,), masks=(name,)).cases()


def test_wrong_arrays(tmp_path):
    np.save(tmp_path / "line.npy", np.ones(7))
    np.save(tmp_path / "nan.npy", np.full((1, 32, 32), np.nan + 0j))
    np.save(tmp_path / "zero.npy", np.zeros((1, 32, 32), complex))
    for name, message in (("line", r"is not images \(slice, y, x\)"), ("nan", "NaN or infinite"), ("zero", "is empty")):
        with pytest.raises(ReconError, match=message):
            BenchmarkCases((tmp_path / f"{name}.npy",)).cases()

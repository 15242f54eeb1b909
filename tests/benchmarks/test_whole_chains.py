"""Whole chains on scans with masks: what is written is what was measured, and an entry that fails costs no other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.whole_chains import Case, Entry, mask_of, measured
from pipelines.raw import RawScan
from pipelines.simulation.coils import birdcage_maps
from priors.signal.fourier import fft2c

SIZE = 48


@pytest.fixture
def case() -> Case:
    """Two slices of discs, four coils, half of the samples of which none are left out near the centre."""
    y, x = np.meshgrid(*2 * [np.linspace(-1, 1, SIZE)], indexing="ij")
    discs = np.stack([(np.hypot(y, x) < 0.7) * (1 - 0.5 * (np.hypot(y - where, x) < 0.3)) for where in (0.1, -0.2)])
    maps = np.asarray(birdcage_maps(4, (SIZE, SIZE)))
    kspace = fft2c(torch.from_numpy(maps * discs[:, None]).to(torch.complex64)).numpy()
    return Case("discs", kspace, mask_of("poisson_2", (SIZE, SIZE)))


def test_raw_file_holds_the_samples_of_the_mask(case: Case, tmp_path: Path) -> None:
    case.write(tmp_path / "scan.h5")
    with RawScan(tmp_path / "scan.h5") as scan:
        lines = list(scan.acquisitions())
    assert len(lines) == 2 * case.mask.any(1).sum()
    for line in lines:
        number = line.idx.kspace_encode_step_1
        np.testing.assert_array_equal((line.data != 0).all(0), case.mask[number])
        true = case.kspace[line.idx.slice, :, number] * case.mask[number]
        assert np.vdot(line.data, true).real > 0.9999 * np.linalg.norm(line.data) * np.linalg.norm(true)


@pytest.mark.slow
def test_entries_are_measured_and_one_that_fails_is_left_out(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    weak, strong = ("generative_recon.regularisation=0.001",), ("generative_recon.regularisation=1",)
    entries = {"cg": Entry("cg_sense", (strong, weak)), "none": Entry("no_chain"), "zero": Entry("cg_sense", (strong,))}
    found = measured(case, entries, threads=1, rounds=1)
    assert set(found) == {"cg", "zero"} and "no_chain" in capsys.readouterr().out
    assert found["cg"]["settings"] == weak
    assert found["cg"]["psnr_object"] > found["zero"]["psnr_object"] + 3
    assert found["cg"]["seconds"] > 0

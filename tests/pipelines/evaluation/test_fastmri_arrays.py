"""fastMRI files as benchmark cases and training images; lines that were zero-filled."""

from __future__ import annotations

import numpy as np
import pytest

from gadgets.stream import ReconError
from pipelines.evaluation.cases import BenchmarkCases
from pipelines.training_data import scan_slices, training_images
from tests.pipelines.raw.fastmri_files import two_slices, write_fastmri, write_twin
from tests.raw_files import header

PADDED = header(limits={"slice": (0, 1, 0), "kspace_encoding_step_1": (0, 55, 28)})  # 56 lines, 4 to 59 of 64


def cases(path, **changes):
    return BenchmarkCases((path,), patterns=("uniform:2",), **changes).cases()


def disc(shape):
    """Which pixels (y, x) over 150 mm are in the ball of the slices, and its marker."""
    y, x = np.meshgrid(*((np.arange(n) - n // 2) * 150 / n for n in shape), indexing="ij")
    return np.hypot(x, y) < 40, np.hypot(x - 18, y + 11) < 3


def test_the_slices_of_the_same_lines_in_an_ismrmrd_file(tmp_path):
    raw = write_fastmri(tmp_path / "scan.h5", two_slices(), header())
    twin = write_twin(tmp_path / "i.h5", two_slices())
    found = cases(raw)
    assert [(case.data, case.slice) for case in found] == [("scan", 0), ("scan", 1)]
    for case, expected in zip(found, cases(twin), strict=True):
        np.testing.assert_array_equal(case.kspace, expected.kspace)
    np.testing.assert_array_equal(cases(raw, slices=(1,))[0].kspace, found[1].kspace)
    with pytest.raises(ReconError, match="there is no slice 2; it has 2"):
        cases(raw, slices=(2,))
    np.testing.assert_array_equal(training_images((raw,)), training_images((twin,)))


def test_the_reference_is_the_transpose_of_the_reconstruction_of_fastmri(tmp_path):
    """Its reconstruction_rss: inverse FFT, the centre of the readout, root sum of squares; (readout, phase)."""
    data = two_slices().swapaxes(2, 3)
    coils = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(data, (2, 3))), (2, 3))[:, :, 32:96]
    expected = np.sqrt((np.abs(coils) ** 2).sum(1))
    for number, case in enumerate(cases(write_fastmri(tmp_path / "f.h5", two_slices(), header()))):
        np.testing.assert_allclose(case.reference, expected[number].T / expected[number].max(), atol=0.02)


@pytest.mark.parametrize("write", [write_fastmri, write_twin])
def test_what_was_zero_filled_is_cut_off(tmp_path, write):
    data = two_slices()
    if write is write_fastmri:
        raw = write(tmp_path / "f.h5", np.pad(data[:, :, 4:60], ((0, 0), (0, 0), (4, 4), (0, 0))), PADDED)
    else:
        raw = write(tmp_path / "i.h5", data, PADDED, range(4, 60), first=4)
    for case in cases(raw):
        assert case.reference.shape == case.mask.shape == (56, 64)
    ball, marked = disc((56, 64))
    reference = cases(raw)[0].reference
    assert reference[marked].min() > 1.3 * np.median(reference[ball])
    images = training_images((raw,)).abs().numpy()
    assert images.shape == (2, 56, 64) and images[0][marked].min() > 1.3 * np.median(images[0][ball])
    learnt, kspace = scan_slices(raw)
    assert learnt.shape[1:] == kspace.shape[2:] == (56, 64)


@pytest.mark.parametrize(
    "steps",
    [range(20, 44), range(64 * 3 // 4), [*range(0, 64, 2), *range(21, 43, 2)]],
    ids=["a third of the lines", "partial Fourier", "undersampled"],
)
def test_what_is_not_fully_sampled_is_refused(tmp_path, steps):
    mask = np.isin(np.arange(64), list(steps))
    raw = write_fastmri(tmp_path / "f.h5", two_slices() * mask[:, None], header(), mask=mask)
    for read in (cases, lambda path: training_images((path,))):
        with pytest.raises(ReconError, match="of its k-space is sampled"):
            read(raw)


def test_one_coil(tmp_path):
    (case, _) = cases(write_fastmri(tmp_path / "f.h5", two_slices()[:, 0], header()))
    assert case.kspace.shape == (1, 64, 64)

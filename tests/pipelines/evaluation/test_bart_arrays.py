"""BART's .cfl files as benchmark cases and training data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gadgets.stream import ReconError
from pipelines.evaluation.array_files import is_array, kspace_slices, read_images
from pipelines.evaluation.cases import BenchmarkCases
from pipelines.training_data import scan_slices, training_images
from priors.signal.fourier import ifft2c
from tests.raw_files import BALL, kspace


def write_cfl(path: Path, data, dimensions=None) -> Path:
    """A pair of files NAME.cfl and NAME.hdr of an array in BART's order of dimensions; NAME is returned."""
    Path(f"{path}.cfl").write_bytes(np.asarray(data, np.complex64).tobytes(order="F"))
    sizes = " ".join(map(str, dimensions or (*data.shape, *[1] * (16 - data.ndim))))
    Path(f"{path}.hdr").write_text(f"# Dimensions\n{sizes} \n# Command\nphantom -k scan \n# Creator\nBART v0.9.00\n")
    return path


def bart(data):
    """k-space (slice, coil, y, x) in BART's order: READ, PHS1, PHS2, COIL, ..., SLICE is dimension 13."""
    moved = np.asarray(data).transpose(3, 2, 1, 0)[:, :, None]
    return moved.reshape(*moved.shape[:4], *[1] * 9, moved.shape[4])


@pytest.fixture(scope="module")
def slices():
    return np.stack([kspace(), kspace(objects=(BALL,))])


@pytest.mark.slow
def test_kspace_is_that_of_the_same_array(slices, tmp_path):
    np.save(tmp_path / "scan.npy", slices)
    expected = BenchmarkCases((tmp_path / "scan.npy",), kspace=True).cases()
    name = write_cfl(tmp_path / "scan", bart(slices))
    for given in (name, tmp_path / "scan.cfl", tmp_path / "scan.hdr"):
        found = BenchmarkCases((given,), kspace=True).cases()
        assert [(case.name, case.slice) for case in found] == [(case.name, case.slice) for case in expected]
        np.testing.assert_array_equal(found[0].kspace, expected[0].kspace)
    np.testing.assert_array_equal(
        training_images((name,), kspace=True), training_images((tmp_path / "scan.npy",), kspace=True)
    )
    np.testing.assert_array_equal(scan_slices(name)[1], slices)


def test_names_with_dots_and_files_of_that_name(slices, tmp_path):
    name = write_cfl(tmp_path / "scan.v2", bart(slices[:1]))
    assert is_array(name) and len(BenchmarkCases((name,), kspace=True).cases()) == 1
    assert not is_array(tmp_path / "scan.h5") and not is_array(tmp_path / "scan")
    (tmp_path / "raw").touch()
    write_cfl(tmp_path / "raw", bart(slices[:1]))
    assert not is_array(tmp_path / "raw")  # a raw file


def test_images(tmp_path):
    images = np.random.default_rng(0).standard_normal((3, 12, 16)).astype(np.complex64)
    for name, shape in (("slices", (16, 12, *[1] * 11, 3)), ("volume", (16, 12, 3))):
        path = write_cfl(tmp_path / name, images.transpose(2, 1, 0).reshape(shape))
        np.testing.assert_array_equal(read_images(path), images)
        np.testing.assert_array_equal(training_images((path,)), images)
        cases = BenchmarkCases((path,), patterns=("uniform:2",)).cases()
        np.testing.assert_allclose(cases[2].reference, abs(images[2]) / abs(images[2]).max(), atol=1e-5)


def test_the_readout_positions_of_a_volume(tmp_path):
    rng = np.random.default_rng(0)
    data = (rng.standard_normal((8, 40, 24, 3)) + 1j * rng.standard_normal((8, 40, 24, 3))).astype(np.complex64)
    ((found, mask),) = kspace_slices(write_cfl(tmp_path / "volume", data))
    assert found.shape == (8, 3, 40, 24) and mask.shape == (40, 24) and mask.all()
    image = np.fft.fftshift(np.fft.ifftn(np.fft.ifftshift(data, (0, 1, 2)), axes=(0, 1, 2), norm="ortho"), (0, 1, 2))
    np.testing.assert_allclose(ifft2c(found).numpy(), image.transpose(0, 3, 1, 2), atol=1e-5)


def test_undersampled_kspace_is_refused(slices, tmp_path):
    slices = slices.copy()
    slices[:, :, 1::2] = 0
    name = write_cfl(tmp_path / "under", bart(slices))
    with pytest.raises(ReconError, match=r"under, slice 0: 50% of its k-space is sampled"):
        BenchmarkCases((name,), kspace=True).cases()
    with pytest.raises(ReconError, match=r"under, slice 0: 50% of its k-space is sampled"):
        training_images((name,), kspace=True)


@pytest.mark.parametrize(
    ("data", "dimensions", "is_kspace", "message"),
    [
        (np.ones((16, 12, 1, 4)), None, False, r"its dimension COIL is 4; k-space needs --kspace"),
        (np.ones((16, 12, 1, 4, 2)), None, True, r"its dimension MAPS is 2; take one: bart slice 4 0 x one"),
        (np.ones((16, 12, 1, 4, 1, 8)), None, True, r"its dimension TE is 8; take one: bart slice 5 0 x one"),
        (np.ones((16, 12, *[1] * 12, 3)), None, True, r"its dimension AVG is 3; take one: bart slice 14 0 x one"),
        (np.ones((16, 12, 1, 4)), (16, 12, 1, 8), True, r"it has 6144 bytes, its .hdr says 16 x 12 x 1 x 8 values"),
        (np.ones((16, 12, 1, 4)), (16, 12, 1, 2), True, r"it has 6144 bytes, .* which are 3072; copy both"),
        (np.ones((16, 12, 1, 4)), (16, 12, 0, 4), True, r"no line of dimensions"),
        (np.ones((16, 12, 1, 4)), ("sixteen", 12), True, r"no line of dimensions"),
        (np.full((16, 12, 1, 4), np.nan), None, True, r"slice 0: it has NaN or infinite samples"),
    ],
)
def test_what_cannot_be_read(tmp_path, data, dimensions, is_kspace, message):
    name = write_cfl(tmp_path / "x", data, dimensions)
    for read in (
        lambda: BenchmarkCases((name,), kspace=is_kspace).cases(),
        lambda: training_images((name,), is_kspace),
    ):
        with pytest.raises(ReconError, match=message) as caught:
            read()
        assert "\n" not in str(caught.value)


def test_half_of_a_pair(slices, tmp_path):
    for missing in (".cfl", ".hdr"):
        name = write_cfl(tmp_path / f"lacks{missing[1:]}", bart(slices))
        Path(f"{name}{missing}").unlink()
        with pytest.raises(ReconError, match=rf"\{missing}: cannot be read \(No such file.*a .cfl and a .hdr of one"):
            BenchmarkCases((name,), kspace=True).cases()
    Path(tmp_path / "empty.hdr").touch()
    Path(tmp_path / "empty.cfl").touch()
    with pytest.raises(ReconError, match="no line of dimensions"):
        BenchmarkCases((tmp_path / "empty.cfl",), kspace=True).cases()

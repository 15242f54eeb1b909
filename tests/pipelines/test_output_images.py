"""Phase, real, imaginary and complex images of a scan with known phase: MRD, DICOM and pictures."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gadgets.image_values import values_of
from gadgets.outputs import COMPLEX, IMAGINARY, MAGNITUDE, PHASE, REAL
from pipelines.replay import read_images
from tests import raw_files
from tests.gadgets.dicom.validator import assert_valid

ALL = "generative_recon.output=complex,imaginary,real,phase,magnitude"
PARTS = (MAGNITUDE, PHASE, REAL, IMAGINARY)
ECHOES = "<contrast><minimum>0</minimum><maximum>1</maximum><center>0</center></contrast>"


def first_echo(place: Any) -> Any:
    return 1.5 * place[..., 0] / 40 + 1.1 * (place[..., 1] / 40) ** 2


def second_echo(place: Any) -> Any:
    return first_echo(place) + 2.2 * np.sin(place[..., 1] / 30)


def truths() -> tuple[list[Any], Any]:
    """Phases of the echoes (y, x) on the grid of the images, and the inside of the ball."""
    along = (np.arange(64) - 32) * 150 / 64
    x, y = np.meshgrid(along, along)
    place = np.stack([x, y, np.zeros_like(x)], axis=-1)
    return [first_echo(place), second_echo(place)], np.hypot(x, y) < 41


def two_echoes() -> tuple[str, list[Any]]:
    header = raw_files.header(limits={"contrast": (0, 1, 0)})
    echoes = [raw_files.kspace(phase=phase) for phase in (first_echo, second_echo)]
    return header, [line for echo, data in enumerate(echoes) for line in raw_files.lines(data, contrast=echo)]


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, list[Any]]:
    """Folder, account and DICOM datasets of a replay with all outputs."""
    folder = tmp_path_factory.mktemp("outputs")
    raw = raw_files.write(folder / "scan.h5", two_echoes())
    result, datasets = raw_files.replay(raw, folder / "out", ALL)
    return folder / "out", result, datasets


def by_series(datasets: list[Any]) -> dict[int, list[Any]]:
    found: dict[int, list[Any]] = {}
    for dataset in datasets:
        found.setdefault(int(dataset.SeriesNumber), []).append(dataset)
    return found


def test_every_output_is_a_series_of_its_own(scan: Any) -> None:
    folder, result, datasets = scan
    assert sorted(result.series) == [1 + output.series for output in (*PARTS, COMPLEX)]
    series = by_series(datasets)
    assert sorted(series) == [1001 + output.series for output in PARTS]
    assert len({one.SeriesInstanceUID for one in datasets}) == len(PARTS)
    assert len({one.SOPInstanceUID for one in datasets}) == 2 * len(PARTS)
    assert all([one.InstanceNumber for one in both] == [1, 2] for both in series.values())
    for output in PARTS:
        one = series[1001 + output.series][0]
        assert list(one.ImageType) == ["DERIVED", "PRIMARY", *output.terms]
        assert one.ComplexImageComponent == output.component
        assert one.SeriesDescription == f"scan cg_sense {output.words}".strip()
    assert [text for text in result.warnings if "complex" in text] == [
        "DicomOutput: complex images only pass on: DICOM has no place for them; ask generative_recon for output real "
        "and imaginary too"
    ]
    assert json.loads((folder / "replay.json").read_text())["warnings"] == result.warnings
    assert_valid(folder.rglob("*.dcm"))


def test_the_phase_is_the_object_s_and_one_constant(scan: Any) -> None:
    """The coils of this scan have a constant phase each; the constant is the same in both echoes."""
    folder, _, datasets = scan
    phases, inside = truths()
    found = [raw_files.pixels(one) * math.pi / 4096 for one in by_series(datasets)[1001 + PHASE.series]]
    errors = [np.exp(1j * (angle - truth))[inside] for angle, truth in zip(found, phases, strict=True)]
    constant = errors[0].mean() / abs(errors[0].mean())
    for error in errors:
        assert np.abs(np.angle(error / constant)).mean() < 0.02
        assert np.abs(np.angle(error / constant)).max() < 0.2
    for image, angle in zip(read_images(folder, 1 + PHASE.series), found, strict=True):
        difference = np.angle(np.exp(1j * (values_of(image)[0, 0] - angle)))
        assert np.abs(difference).max() < 1.01 * math.pi / 4096  # half a step of 12 bit, and of 16 bit


def test_differences_of_phase_between_echoes_are_those_of_the_object(scan: Any) -> None:
    folder, _, _ = scan
    (first, second), inside = truths()
    found = [values_of(image)[0, 0] for image in read_images(folder, 1 + PHASE.series)]
    error = np.angle(np.exp(1j * (found[1] - found[0] - (second - first))))[inside]
    assert abs(error.mean()) < 0.005 and np.abs(error).mean() < 0.02


def test_parts_and_complex_image_are_one_image(scan: Any) -> None:
    folder, _, datasets = scan
    series = by_series(datasets)
    values = {
        output: [values_of(image)[0, 0] for image in read_images(folder, 1 + output.series)]
        for output in (*PARTS, COMPLEX)
    }
    for echo in (0, 1):
        whole = values[COMPLEX][echo]
        assert whole.dtype == np.complex64
        step = 0.51 * float(series[1001 + REAL.series][echo].RescaleSlope)
        assert np.abs(values[REAL][echo] - whole.real).max() < step
        assert np.abs(values[IMAGINARY][echo] - whole.imag).max() < step
        assert np.abs(values[MAGNITUDE][echo] - np.abs(whole)).max() < step
        strong = np.abs(whole) > 10 * step
        turned = np.angle(np.exp(1j * (values[PHASE][echo] - np.angle(whole))))
        assert np.abs(turned[strong]).max() < 1.01 * math.pi / 16384
        for output in (MAGNITUDE, REAL, IMAGINARY):
            dataset = series[1001 + output.series][echo]
            np.testing.assert_allclose(raw_files.pixels(dataset), values[output][echo], atol=0.02 * step)
            assert dataset.RescaleType == "US"
    assert values[REAL][0].min() < 0 < values[REAL][0].max()


def test_phase_in_dicom_is_as_siemens_stores_it(scan: Any) -> None:
    _, _, datasets = scan
    for dataset in by_series(datasets)[1001 + PHASE.series]:
        assert (dataset.RescaleSlope, dataset.RescaleIntercept) == (2, -4096)
        assert (dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit) == (16, 12, 11)
        assert dataset.pixel_array.max() <= 4095
        assert (dataset.WindowCenter, dataset.WindowWidth) == (0, 8192)
        (mapping,) = dataset.RealWorldValueMappingSequence
        assert mapping.MeasurementUnitsCodeSequence[0].CodeValue == "rad"
        radians = dataset.pixel_array * mapping.RealWorldValueSlope + mapping.RealWorldValueIntercept
        np.testing.assert_allclose(radians, raw_files.pixels(dataset) * math.pi / 4096)


def test_pictures_show_phase_from_black_to_white_and_zero_of_signed_images_grey(scan: Any) -> None:
    folder, _, _ = scan
    phase = np.asarray(Image.open(folder / f"series_{1 + PHASE.series}.png"), float)[:64, :64]
    (image, _) = read_images(folder, 1 + PHASE.series)
    assert np.abs(phase - (values_of(image)[0, 0] / math.pi + 1) * 127.5).max() <= 1
    real = np.asarray(Image.open(folder / f"series_{1 + REAL.series}.png"), float)[:64, :64]
    (image, _) = read_images(folder, 1 + REAL.series)
    values = values_of(image)[0, 0]
    white = np.abs(values).max()
    assert np.median(real[:5]) == pytest.approx(127, abs=2)
    assert (real[values > 0.1 * white] > 135).all() and (real[values < -0.1 * white] < 120).all()
    assert (values < -0.1 * white).any()


def test_dcm2niix_knows_the_kinds(scan: Any, tmp_path: Path) -> None:
    converter = shutil.which("dcm2niix")
    if converter is None:
        pytest.skip("dcm2niix is not installed (Debian package dcm2niix): kinds of images are not checked")
    folder, _, _ = scan
    command = [converter, "-z", "n", "-f", "%s", "-o", str(tmp_path), str(folder / "dicom")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    names = {path.stem for path in tmp_path.glob("*.nii")}
    ends = {MAGNITUDE: "", PHASE: "_ph", REAL: "_real", IMAGINARY: "_imaginary"}
    assert names == {f"{1001 + output.series}_e{echo}{end}" for output, end in ends.items() for echo in (1, 2)}


def test_phase_in_radians(tmp_path: Path) -> None:
    raw = raw_files.write(
        tmp_path / "scan.h5", (raw_files.header(), raw_files.lines(raw_files.kspace(phase=first_echo)))
    )
    settings = ("generative_recon.output=phase", "dicom_output.phase_rescale=radians")
    _, (dataset,) = raw_files.replay(raw, tmp_path / "out", *settings)
    (image,) = read_images(tmp_path / "out", 1 + PHASE.series)
    np.testing.assert_allclose(raw_files.pixels(dataset), values_of(image)[0, 0], atol=1e-4)
    assert float(dataset.RescaleIntercept) == pytest.approx(-math.pi)
    assert_valid((tmp_path / "out").rglob("*.dcm"))


@pytest.mark.parametrize("method", ["zero_filled", "l1_wavelet", "grappa", "wkgm"])
def test_no_method_loses_the_phase(method: str, tmp_path: Path) -> None:
    steps = [step for step in range(64) if step % 2 == 0 or 20 <= step < 44]
    data = raw_files.kspace(phase=first_echo)
    raw = raw_files.write(tmp_path / "scan.h5", (raw_files.header(), raw_files.lines(data, steps)))
    settings = [f"generative_recon.method={method}", "generative_recon.output=phase"]
    settings += ["generative_recon.steps=4"] if method == "wkgm" else []
    raw_files.replay(raw, tmp_path / "out", *settings)
    (image,) = read_images(tmp_path / "out", 1 + PHASE.series)
    phases, inside = truths()
    error = np.exp(1j * (values_of(image)[0, 0] - phases[0]))[inside]
    assert np.abs(np.angle(error / error.mean())).mean() < (0.3 if method == "zero_filled" else 0.08)


def test_another_offset_in_the_chain_is_refused_not_clipped(tmp_path: Path) -> None:
    raw = raw_files.write(tmp_path / "scan.h5", (raw_files.header(), raw_files.lines(raw_files.kspace())))
    settings = ["generative_recon.output=magnitude,phase", "FloatToUShortGadget.intensity_offset=0"]
    with pytest.raises(Exception, match="property 'intensity_offset' is 0, but phase images count on 16384: set it"):
        raw_files.replay(raw, tmp_path / "out", *settings)


def test_an_offset_of_12_bit_in_both_gadgets(tmp_path: Path) -> None:
    """As in chains with FloatToUShortGadget as it comes: 0 to 4095."""
    raw = raw_files.write(
        tmp_path / "scan.h5", (raw_files.header(), raw_files.lines(raw_files.kspace(phase=first_echo)))
    )
    offset = ["FloatToUShortGadget.intensity_offset=2048", "generative_recon.intensity_offset=2048"]
    result, datasets = raw_files.replay(raw, tmp_path / "out", "generative_recon.output=phase,real,imaginary", *offset)
    images = {o: next(read_images(tmp_path / "out", 1 + o.series)) for o in (PHASE, REAL, IMAGINARY)}
    assert all(image.data.max() <= 4096 for image in images.values())
    assert not [text for text in result.warnings if "cut to it" in text]
    phase, real, imaginary = (values_of(images[o])[0, 0] for o in (PHASE, REAL, IMAGINARY))
    inside = truths()[1]
    assert np.abs(np.angle((real + 1j * imaginary) * np.exp(-1j * phase)))[inside].max() < 0.02
    np.testing.assert_allclose(raw_files.pixels(datasets[0])[inside] * math.pi / 4096, phase[inside], atol=0.002)


@pytest.mark.slow
def test_posterior_samples_have_the_complex_mean_of_all_parts(tmp_path: Path) -> None:
    """And the magnitude series is what it is without the others."""
    steps = [step for step in range(64) if step % 3 == 0 or 22 <= step < 42]
    data = raw_files.kspace(phase=first_echo) + raw_files.noise((4, 64, 128), 0.02)
    raw = raw_files.write(tmp_path / "scan.h5", (raw_files.header(), raw_files.lines(data, steps)))
    settings = ["generative_recon.method=wkgm", "generative_recon.steps=4", "generative_recon.samples=3"]
    result, datasets = raw_files.replay(raw, tmp_path / "all", *settings, ALL)
    raw_files.replay(raw, tmp_path / "one", *settings)
    assert sorted(result.series) == [1, 101, 201, 301, 401, 501]
    assert len({dataset.SeriesInstanceUID for dataset in datasets}) == 5
    for series in (1, 101):
        (with_others,), (alone,) = (read_images(tmp_path / name, series) for name in ("all", "one"))
        assert np.array_equal(with_others.data, alone.data)
    found = {series: values_of(next(read_images(tmp_path / "all", series)))[0, 0] for series in result.series}
    step = 0.51 * float(datasets[-1].RescaleSlope)
    assert np.abs(found[301] + 1j * found[401] - found[501]).max() < 2 * step
    assert (np.abs(found[501]) <= found[1] + 2 * step).all()  # the mean of magnitudes is no less
    phases, inside = truths()
    error = np.exp(1j * (found[201] - phases[0]))[inside]
    assert np.abs(np.angle(error / error.mean())).mean() < 0.1


@pytest.mark.parametrize("fourier", ["pocs", "homodyne"])
def test_partial_fourier_keeps_the_phase(fourier: str, tmp_path: Path) -> None:
    data = raw_files.kspace(phase=first_echo)
    raw = raw_files.write(tmp_path / "scan.h5", (raw_files.header(), raw_files.lines(data, range(16, 64))))
    settings = [f"generative_recon.partial_fourier={fourier}", "generative_recon.output=phase"]
    raw_files.replay(raw, tmp_path / "out", *settings)
    (image,) = read_images(tmp_path / "out", 1 + PHASE.series)
    phases, inside = truths()
    error = np.exp(1j * (values_of(image)[0, 0] - phases[0]))[inside]
    assert np.abs(np.angle(error / error.mean())).mean() < 0.08

"""Simulated scans: truth, sampling, flags, header, noise and files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import h5py
import ismrmrd
import numpy as np
import pytest
from numpy.typing import NDArray

from gadgets.twins.fourier import centred_fft
from pipelines.simulation import Simulation, SimulationSettings, simulate, write_raw
from pipelines.simulation.geometry import slice_order, slice_position_mm
from pipelines.simulation.phantom import phantom
from pipelines.simulation.resample import crop_or_pad, fold, resample

CALIBRATION = ismrmrd.ACQ_IS_PARALLEL_CALIBRATION
CALIBRATION_AND_IMAGING = ismrmrd.ACQ_IS_PARALLEL_CALIBRATION_AND_IMAGING
NOISE = ismrmrd.ACQ_IS_NOISE_MEASUREMENT


def settings(**changes: Any) -> SimulationSettings:
    """A small scan."""
    small: dict[str, Any] = {"matrix": (24, 20, 1), "coils": 3, "calibration_lines": 6}
    return SimulationSettings(**small | changes)


def imaging(acquisitions: Iterable[ismrmrd.Acquisition]) -> list[ismrmrd.Acquisition]:
    """Acquisitions that are neither noise nor calibration only."""
    return [a for a in acquisitions if not a.is_flag_set(NOISE) and not a.is_flag_set(CALIBRATION)]


def sort_lines(simulation: Simulation, acquisitions: Iterable[ismrmrd.Acquisition]) -> NDArray[np.complex64]:
    """K-space (repetition, slice, coil, E2, E1, readout), averaged, placed by header and encoding limits."""
    s, encoding = simulation.settings, simulation.header.encoding[0]
    matrix, limits = encoding.encodedSpace.matrixSize, encoding.encodingLimits
    kspace = np.zeros((s.repetitions, s.slices, s.coils, matrix.z, matrix.y, matrix.x), np.complex64)
    for a in acquisitions:
        row = a.idx.kspace_encode_step_1 - limits.kspace_encoding_step_1.center + matrix.y // 2
        partition = a.idx.kspace_encode_step_2 - limits.kspace_encoding_step_2.center + matrix.z // 2
        begin = matrix.x // 2 - a.center_sample
        place = (a.idx.repetition, a.idx.slice, slice(None), partition, row)
        kspace[place][:, begin : begin + a.number_of_samples] += a.data / s.averages
    return kspace


def root_sum_of_squares(kspace: NDArray[np.complex64], readout: int) -> NDArray[np.float32]:
    """Images (repetition, slice, z, y, x) without readout oversampling."""
    begin = (kspace.shape[-1] - readout) // 2
    images = centred_fft(kspace, (-3, -2, -1), inverse=True)[..., begin : begin + readout]
    combined: NDArray[np.float32] = np.sqrt((np.abs(images) ** 2).sum(axis=2))
    return combined


def flags_of(acquisitions: Iterable[ismrmrd.Acquisition], flag: int) -> list[int]:
    """Places of the acquisitions with a flag."""
    return [place for place, a in enumerate(acquisitions) if a.is_flag_set(flag)]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"matrix": (23, 19, 1)},
        {"matrix": (23, 19, 1), "readout_oversampling": 1.0},
        {"matrix": (24, 20, 8), "field_of_view_mm": (220.0, 220.0, 120.0)},
        {"matrix": (21, 20, 7), "slices": 2},
        {"slices": 3, "slice_order": "interleaved", "repetitions": 2, "averages": 2},
        {"coils": 1},
        {"coils": 40, "coil_maps": "random"},
        {"object_scale": 1.4},
        {"supersampling": 1, "image_phase_rad": 0.0},
    ],
)
def test_full_sampling_gives_the_truth(changes: dict[str, Any]) -> None:
    simulation = simulate(settings(**changes))
    images = root_sum_of_squares(sort_lines(simulation, simulation.acquisitions()), simulation.settings.matrix[0])
    truth = simulation.truth if simulation.settings.is_3d else simulation.truth[:, :, None]
    assert truth.dtype == np.float32
    assert images.shape == truth.shape
    np.testing.assert_allclose(images, truth, atol=2e-6 * truth.max())


def test_truth_needs_no_acquisition() -> None:
    before, after = simulate(settings(slices=2)), simulate(settings(slices=2))
    assert len(list(after.acquisitions())) == after.number_of_acquisitions
    np.testing.assert_array_equal(before.truth, after.truth)
    assert not np.allclose(before.truth[0, 0], before.truth[0, 1])


def test_single_uniform_coil_gives_the_given_image() -> None:
    rng = np.random.default_rng(0)
    image = rng.standard_normal((2, 20, 24)) + 1j * rng.standard_normal((2, 20, 24))
    simulation = simulate(settings(slices=2, coils=1), image)
    np.testing.assert_allclose(simulation.truth[0], np.abs(image), rtol=1e-5)
    kspace = sort_lines(simulation, simulation.acquisitions())
    received = crop_or_pad(centred_fft(kspace, (-2, -1), inverse=True), (24,), (-1,))
    np.testing.assert_allclose(received[0, :, 0, 0], image, atol=1e-5)


def test_odd_readout_keeps_the_image_in_place() -> None:
    image = np.random.default_rng(0).random((1, 19, 23))
    simulation = simulate(settings(matrix=(23, 19, 1), coils=1), image)
    np.testing.assert_allclose(simulation.truth[0], image, rtol=1e-5)


def test_finer_images_are_band_limited() -> None:
    image = phantom(np.linspace(-1, 1, 80), np.linspace(-1, 1, 96), 0.0)[None]
    truth = simulate(settings(coils=1, image_phase_rad=0.0), image).truth[0]
    np.testing.assert_allclose(truth, np.abs(resample(image, (20, 24), (1, 2))), atol=1e-5)


def test_object_larger_than_the_field_of_view_folds() -> None:
    image = np.zeros((1, 40, 24), np.float32)
    image[0, 3, 12] = 1.0
    simulation = simulate(settings(coils=1, object_scale=2.0, supersampling=1), np.repeat(image, 2, axis=2))
    row, column = np.unravel_index(simulation.truth[0, 0].argmax(), (20, 24))
    assert row == (3 - 20 + 10) % 20
    assert column in (11, 12, 13)


def test_recon_space_crops_and_interpolates() -> None:
    plain = simulate(settings(matrix=(24, 28, 1), field_of_view_mm=(240.0, 280.0, 5.0)))
    recon = {"recon_matrix": (24, 20, 1), "recon_field_of_view_mm": (240.0, 200.0, 5.0)}
    cropped = simulate(settings(matrix=(24, 28, 1), field_of_view_mm=(240.0, 280.0, 5.0), **recon))
    np.testing.assert_allclose(cropped.truth, plain.truth[:, :, 4:24], atol=1e-6)
    finer = simulate(settings(recon_matrix=(48, 40, 1)))
    assert finer.truth.shape == (1, 1, 40, 48)
    assert finer.truth.mean() == pytest.approx(simulate(settings()).truth.mean(), rel=0.05)
    spaces = cropped.header.encoding[0]
    assert (spaces.encodedSpace.matrixSize.x, spaces.encodedSpace.fieldOfView_mm.x) == (48, 480.0)
    assert (spaces.reconSpace.matrixSize.y, spaces.reconSpace.fieldOfView_mm.y) == (20, 200.0)


def test_repetitions_and_contrasts_differ_in_intensity() -> None:
    simulation = simulate(settings(repetitions=3, contrasts=2, sets=2))
    truth = simulation.truth
    for repetition in range(3):
        np.testing.assert_allclose(truth[repetition], simulation.intensity(repetition) * truth[0], rtol=1e-5)
    assert simulation.intensity(0) == 1 < simulation.intensity(1) < simulation.intensity(2)
    peak: dict[tuple[int, int, int], float] = {}
    for a in simulation.acquisitions():
        key = (a.idx.repetition, a.idx.set, a.idx.contrast)
        peak[key] = max(peak.get(key, 0.0), float(np.abs(a.data).max()))
    assert peak[1, 1, 1] / peak[0, 0, 0] == pytest.approx(simulation.intensity(1, 1), rel=1e-5)


def test_loop_flags_and_limits() -> None:
    s = settings(slices=3, slice_order="interleaved", repetitions=2, averages=2, sets=2, contrasts=2)
    simulation = simulate(s)
    scan = list(simulation.acquisitions())
    per_slice = 2 * 2 * 20 * 2
    assert len(scan) == simulation.number_of_acquisitions == 2 * 3 * per_slice
    assert flags_of(scan, ismrmrd.ACQ_FIRST_IN_SLICE) == list(range(0, len(scan), per_slice))
    assert flags_of(scan, ismrmrd.ACQ_LAST_IN_SLICE) == list(range(per_slice - 1, len(scan), per_slice))
    assert flags_of(scan, ismrmrd.ACQ_FIRST_IN_REPETITION) == [0, 3 * per_slice]
    assert flags_of(scan, ismrmrd.ACQ_LAST_IN_REPETITION) == [3 * per_slice - 1, 6 * per_slice - 1]
    assert flags_of(scan, ismrmrd.ACQ_LAST_IN_MEASUREMENT) == [len(scan) - 1]
    assert flags_of(scan, ismrmrd.ACQ_FIRST_IN_AVERAGE) == list(range(0, len(scan), 80))
    assert flags_of(scan, ismrmrd.ACQ_LAST_IN_SET) == list(range(39, len(scan), 40))
    assert flags_of(scan, ismrmrd.ACQ_FIRST_IN_CONTRAST)[:4] == [0, 1, 40, 41]
    assert flags_of(scan, ismrmrd.ACQ_LAST_IN_ENCODE_STEP1)[:2] == [38, 39]
    assert [scan[i].idx.slice for i in range(0, 3 * per_slice, per_slice)] == [0, 2, 1] == slice_order(s)
    assert [a.scan_counter for a in scan] == list(range(1, len(scan) + 1))
    stamps = np.array([a.acquisition_time_stamp for a in scan])
    assert (np.diff(stamps) >= 0).all()
    assert stamps[0] >= 9.5 * 3600 / 0.0025
    limits = simulation.header.encoding[0].encodingLimits
    highest = {"slice": 2, "repetition": 1, "average": 1, "set": 1, "contrast": 1, "phase": 0, "segment": 0}
    assert {name: getattr(limits, name).maximum for name in highest} == highest
    assert all(a.active_channels == a.available_channels == 3 and a.channel_mask[0] == 0b111 for a in scan)


def test_embedded_calibration_lines() -> None:
    simulation = simulate(settings(sampling="uniform", acceleration=3))
    scan = list(simulation.acquisitions())
    rows = [a.idx.kspace_encode_step_1 for a in scan]
    assert rows == sorted({1, 4, 7, 10, 13, 16, 19} | set(range(7, 13)))
    assert [rows[i] for i in flags_of(scan, CALIBRATION_AND_IMAGING)] == [7, 10]
    assert [rows[i] for i in flags_of(scan, CALIBRATION)] == [8, 9, 11, 12]
    assert np.flatnonzero(simulation.sampling_mask[0, :, 0]).tolist() == [1, 4, 7, 10, 13, 16, 19]
    assert np.flatnonzero(simulation.calibration_mask[:, 0]).tolist() == list(range(7, 13))
    parallel = simulation.header.encoding[0].parallelImaging
    assert parallel.accelerationFactor.kspace_encoding_step_1 == 3
    assert parallel.calibrationMode.value == "embedded"
    limits = simulation.header.encoding[0].encodingLimits.kspace_encoding_step_1
    assert (limits.minimum, limits.maximum, limits.center) == (0, 19, 10)


@pytest.mark.parametrize("mode", ["separate", "external"])
def test_calibration_block_of_its_own(mode: str) -> None:
    changes = {"calibration": mode, "slices": 2, "repetitions": 2, "calibration_repetitions": "first"}
    simulation = simulate(settings(sampling="uniform", acceleration=2, **changes))
    scan = list(simulation.acquisitions())
    assert flags_of(scan, CALIBRATION) == list(range(12))
    assert flags_of(scan, CALIBRATION_AND_IMAGING) == []
    assert [a.idx.kspace_encode_step_1 for a in scan[:6]] == list(range(7, 13))
    assert [a.idx.slice for a in scan[:12]] == [0] * 6 + [1] * 6
    assert len(scan) == simulation.number_of_acquisitions == 12 + 4 * 10
    assert flags_of(scan, ismrmrd.ACQ_FIRST_IN_SLICE)[0] == 12
    centre = next(a for a in scan[12:] if a.idx.kspace_encode_step_1 == 10)
    same = np.allclose(np.abs(centre.data), np.abs(scan[3].data))
    assert same == (mode == "separate")
    each = simulate(settings(sampling="uniform", acceleration=2, calibration=mode, repetitions=2))
    assert len(flags_of(each.acquisitions(), CALIBRATION)) == 12


def test_embedded_calibration_of_the_first_repetition_only() -> None:
    s = settings(sampling="uniform", acceleration=2, repetitions=2, calibration_repetitions="first")
    scan = list(simulate(s).acquisitions())
    marked = flags_of(scan, CALIBRATION) + flags_of(scan, CALIBRATION_AND_IMAGING)
    assert {scan[i].idx.repetition for i in marked} == {0}
    assert sum(a.idx.repetition == 1 for a in scan) == 10


def test_interleaved_repetitions_fill_kspace() -> None:
    s = settings(sampling="uniform", acceleration=3, calibration="interleaved", repetitions=3)
    simulation = simulate(s)
    assert simulation.sampling_mask.sum(axis=0).tolist() == [[1]] * 20
    assert all(a.is_flag_set(CALIBRATION_AND_IMAGING) for a in simulation.acquisitions())
    assert simulation.header.encoding[0].parallelImaging.interleavingDimension.value == "repetition"


def test_no_calibration() -> None:
    simulation = simulate(settings(sampling="random", acceleration=2, calibration="none"))
    scan = list(simulation.acquisitions())
    assert len(scan) == 10
    assert flags_of(scan, CALIBRATION) + flags_of(scan, CALIBRATION_AND_IMAGING) == []
    assert simulation.header.encoding[0].parallelImaging.calibrationMode.value == "other"


@pytest.mark.parametrize("sampling", ["random", "poisson"])
def test_incoherent_3d_sampling(sampling: str) -> None:
    s = settings(matrix=(8, 40, 32), sampling=sampling, acceleration=6.5, calibration_lines=8)
    simulation = simulate(s)
    mask = simulation.sampling_mask[0]
    assert mask.sum() == round(40 * 32 / 6.5)
    assert mask[16:24, 12:20].all()
    assert mask[10:30, 8:24].mean() > 1.5 * mask.mean()
    scan = list(simulation.acquisitions())
    assert len(flags_of(scan, CALIBRATION_AND_IMAGING)) == 64
    assert flags_of(scan, CALIBRATION) == []
    assert flags_of(scan, ismrmrd.ACQ_FIRST_IN_ENCODE_STEP2) == [0]
    assert flags_of(scan, ismrmrd.ACQ_LAST_IN_ENCODE_STEP2) == [len(scan) - 1]
    assert len(flags_of(scan, ismrmrd.ACQ_FIRST_IN_ENCODE_STEP1)) == int(mask.any(axis=0).sum())
    full = simulate(settings(matrix=(8, 40, 32)))
    expected = sort_lines(full, full.acquisitions())[0, 0] * mask.T[:, :, None]
    np.testing.assert_allclose(sort_lines(simulation, scan)[0, 0], expected, atol=1e-5)
    np.testing.assert_array_equal(simulate(s).sampling_mask, simulation.sampling_mask)


def test_uniform_3d_sampling() -> None:
    s = settings(matrix=(8, 20, 12), sampling="uniform", acceleration=2, acceleration_e2=3, calibration_lines=4)
    simulation = simulate(s)
    assert simulation.sampling_mask.sum() == 10 * 4
    assert simulation.sampling_mask[0, 10, 6]
    scan = list(simulation.acquisitions())
    assert len(flags_of(scan, CALIBRATION_AND_IMAGING)) + len(flags_of(scan, CALIBRATION)) == 16
    assert len(imaging(scan)) == 40


def test_partial_fourier() -> None:
    s = settings(matrix=(8, 20, 12), partial_fourier=0.75, partial_fourier_e2=0.7)
    simulation = simulate(s)
    limits = simulation.header.encoding[0].encodingLimits
    e1, e2 = limits.kspace_encoding_step_1, limits.kspace_encoding_step_2
    assert (e1.minimum, e1.maximum, e1.center) == (0, 14, 5)
    assert (e2.minimum, e2.maximum, e2.center) == (0, 8, 3)
    kspace = sort_lines(simulation, simulation.acquisitions())
    assert not kspace[..., :3, :, :].any()
    assert not kspace[..., :5, :].any()
    full = simulate(settings(matrix=(8, 20, 12)))
    expected = sort_lines(full, full.acquisitions())
    np.testing.assert_allclose(kspace[..., 3:, 5:, :], expected[..., 3:, 5:, :], atol=1e-6)
    np.testing.assert_array_equal(simulation.truth, full.truth)


def test_asymmetric_echo() -> None:
    simulation, full = simulate(settings(asymmetric_echo=0.75)), simulate(settings())
    first, whole = next(simulation.acquisitions()), next(full.acquisitions())
    assert (first.number_of_samples, first.center_sample, first.discard_pre) == (36, 12, 0)
    assert (whole.number_of_samples, whole.center_sample) == (48, 24)
    np.testing.assert_array_equal(first.data, whole.data[:, 12:])


def test_noise_scan_whitens_the_images() -> None:
    s = settings(coils=4, matrix=(128, 64, 1), noise_level=0.3, noise_scan=True)
    simulation, silent = simulate(s), simulate(settings(coils=4, matrix=(128, 64, 1)))
    scan = list(simulation.acquisitions())
    readouts = flags_of(scan, NOISE)
    assert readouts == list(range(len(readouts)))
    assert sorted({round(a.sample_time_us, 3) for a in scan}) == [2.4, 20.0]
    assert simulation.header.measurementInformation.measurementID
    noise = np.concatenate([scan[i].data for i in readouts], axis=1)
    covariance = noise @ noise.conj().T / (noise.shape[1] - 1)
    bandwidth = simulation.header.acquisitionSystemInformation.relativeReceiverNoiseBandwidth
    scale = np.sqrt(2 * s.dwell_time_us / s.noise_dwell_time_us * bandwidth)
    pairs = zip(imaging(scan), silent.acquisitions(), strict=True)
    residual = np.concatenate([noisy.data - exact.data for noisy, exact in pairs], axis=1)
    white = scale * np.linalg.solve(np.linalg.cholesky(covariance), residual)
    whitened = white @ white.conj().T / white.shape[1]
    np.testing.assert_allclose(whitened, 2 * np.eye(4), atol=0.5)
    measured = residual @ residual.conj().T / residual.shape[1]
    np.testing.assert_allclose(measured, simulation.noise_covariance, atol=0.05 * np.abs(measured).max())
    assert np.trace(measured).real / 4 == pytest.approx(2 * 0.3**2, rel=0.05)


def test_given_noise_covariance() -> None:
    covariance = np.array([[2, 0.5j], [-0.5j, 2]])
    simulation = simulate(settings(coils=2, noise_level=0.1, noise_covariance=covariance))
    np.testing.assert_allclose(simulation.noise_covariance, 0.02 * covariance / 2)


def test_averages_have_their_own_noise_and_seeds_repeat() -> None:
    s = settings(averages=2, noise_level=0.1)
    first, again = (list(simulate(s).acquisitions()) for _ in range(2))
    assert all(np.array_equal(a.data, b.data) for a, b in zip(first, again, strict=True))
    assert not np.allclose(first[0].data, first[20].data)
    assert [first[i].idx.average for i in (0, 20)] == [0, 1]
    other = next(simulate(settings(averages=2, noise_level=0.1, seed=1)).acquisitions())
    assert not np.allclose(first[0].data, other.data)


def test_positions_and_directions() -> None:
    s = settings(slices=3, slice_gap_mm=1.0, position_mm=(10.0, 20.0, 30.0))
    assert [slice_position_mm(s, n).tolist() for n in range(3)] == [[10, 20, 24], [10, 20, 30], [10, 20, 36]]
    turned = {"slices": 2, "rotation_degrees": (20.0, -10.0, 30.0)}
    oblique = simulate(settings(**turned, vendor="generic"))
    siemens = imaging(simulate(settings(**turned, vendor="SIEMENS")).acquisitions())[0]
    a, b = (imaging(oblique.acquisitions())[i] for i in (0, -1))
    frame = np.array([a.read_dir[:], a.phase_dir[:], a.slice_dir[:]])
    np.testing.assert_allclose(frame @ frame.T, np.eye(3), atol=1e-6)
    np.testing.assert_allclose(np.cross(frame[0], frame[1]), frame[2], atol=1e-6)
    np.testing.assert_allclose(np.subtract(b.position, a.position), 5 * frame[2], atol=1e-5)
    # Siemens' directions go with a k-space of the other sign.
    np.testing.assert_allclose([siemens.read_dir[:], siemens.phase_dir[:], siemens.slice_dir[:]], -frame, atol=1e-6)


@pytest.mark.parametrize("vendor", ["SIEMENS", "GE MEDICAL SYSTEMS", "Philips", "generic"])
def test_header(vendor: str) -> None:
    header = simulate(settings(vendor=vendor, contrasts=2)).header
    parsed = ismrmrd.xsd.CreateFromDocument(ismrmrd.xsd.ToXML(header))
    system = parsed.acquisitionSystemInformation
    assert system.systemVendor == (None if vendor == "generic" else vendor)
    assert len(system.coilLabel) == system.receiverChannels == 3
    assert parsed.experimentalConditions.H1resonanceFrequency_Hz > 6e7
    assert parsed.measurementInformation.patientPosition.value == "HFS"
    assert parsed.measurementInformation.frameOfReferenceUID.startswith("2.25.")
    assert parsed.subjectInformation.patientID == "SIM-0001"
    assert str(parsed.studyInformation.studyDate) == "2024-01-15"
    assert parsed.sequenceParameters.TE == [10.0, 20.0]


@pytest.mark.slow
def test_file_round_trip(tmp_path: Path) -> None:
    simulation = simulate(settings(matrix=(24, 50, 1), slices=3, repetitions=2, noise_level=0.01, noise_scan=True))
    counts: list[int] = []
    write_raw(tmp_path / "scan.h5", simulation, counts.append)
    assert [path.name for path in tmp_path.iterdir()] == ["scan.h5"]
    with ismrmrd.Dataset(str(tmp_path / "scan.h5"), mode="r") as dataset:
        assert ismrmrd.xsd.CreateFromDocument(dataset.read_xml_header()) == simulation.header
        assert dataset.number_of_acquisitions() == simulation.number_of_acquisitions == sum(counts)
        for number, acquisition in enumerate(simulation.acquisitions()):
            assert dataset.read_acquisition(number) == acquisition
    with h5py.File(tmp_path / "scan.h5") as file:
        np.testing.assert_array_equal(file["dataset/truth"], simulation.truth)
        assert file["dataset/truth"].attrs["axes"] == "repetition slice y x"


def test_failed_writing_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "scan.h5"
    path.write_text("old")
    simulation = simulate(settings())

    def fail(written: int) -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_raw(path, simulation, fail)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"matrix": (24, 0, 1)}, "matrix: .* from 1 to 4096"),
        ({"matrix": (24, 20)}, "matrix: .* three whole numbers"),
        ({"field_of_view_mm": (220.0, -1.0, 5.0)}, "field_of_view_mm: .* above 0"),
        ({"recon_matrix": (24, 20, 4)}, "recon_matrix: .* z must be 1"),
        ({"coils": 0}, "coils: 0 is not allowed, must be a whole number from 1 to 1024"),
        ({"coils": 2.5}, "coils: 2.5 is not allowed"),
        ({"slice_order": "random"}, "slice_order: 'random' .* sequential, interleaved"),
        ({"sampling": "spiral"}, "sampling: 'spiral' .* full, uniform, poisson, random"),
        ({"sampling": "poisson", "acceleration": 2}, "sampling: 'poisson' .* needs a 3D scan"),
        ({"acceleration": 2}, 'acceleration: 2 .* must be 1 with sampling "full"'),
        ({"sampling": "uniform", "acceleration": 2.5}, "acceleration: 2.5 .* whole number"),
        ({"sampling": "random", "acceleration": 2, "acceleration_e2": 2}, "acceleration_e2: 2"),
        ({"sampling": "random", "acceleration": 5}, "acceleration: 5 .* at most 3.33"),
        ({"sampling": "uniform", "calibration_lines": 21}, "calibration_lines: 21 .* from 1 to 20"),
        ({"sampling": "uniform", "partial_fourier": 0.6, "calibration_lines": 8}, "calibration_lines: 8"),
        ({"partial_fourier": 0.5}, "partial_fourier: 0.5 .* above 0.5"),
        ({"asymmetric_echo": 1.1}, "asymmetric_echo: 1.1"),
        ({"calibration": "interleaved"}, "calibration: 'interleaved' .*uniform"),
        (
            {"calibration": "interleaved", "sampling": "uniform", "acceleration": 2},
            "repetitions: 1 .* at least",
        ),
        ({"noise_level": -1.0}, "noise_level: -1.0"),
        ({"noise_scan": True}, "noise_scan: True .* noise_level above 0"),
        ({"noise_covariance": np.eye(2)}, r"noise_covariance: \(2, 2\) .* \(3, 3\)"),
        ({"noise_covariance": np.ones((3, 3))}, "noise_covariance: .* positive definite"),
        ({"vendor": "Acme"}, "vendor: 'Acme' .* SIEMENS"),
        ({"readout_oversampling": 0.5}, "readout_oversampling: 0.5 .* from 1 to 8"),
        ({"tr_ms": float("nan")}, "tr_ms: nan"),
    ],
)
def test_bad_settings(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        settings(**changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.ones((3, 20, 24)), r"images: shape \(3, 20, 24\) .* \(1, y, x\)"),
        (np.ones(5), "images: shape"),
        (np.zeros((1, 20, 24)), "images: .* not all zero"),
        (np.full((1, 20, 24), np.nan), "images: must be finite"),
    ],
)
def test_bad_images(images: NDArray[Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        simulate(settings(), images)


@pytest.mark.parametrize(("length", "size"), [(7, 4), (8, 5), (9, 9), (5, 8), (4, 7), (23, 5)])
def test_fold_is_undersampling_in_kspace(length: int, size: int) -> None:
    image = np.random.default_rng(0).standard_normal(length)
    positions = np.arange(length) - length // 2
    frequencies = (np.arange(size) - size // 2) / size
    direct = np.exp(-2j * np.pi * np.outer(frequencies, positions)) @ image / np.sqrt(size)
    np.testing.assert_allclose(centred_fft(fold(image, size, 0), (0,)), direct, atol=1e-9)

"""Everything that defines a simulated scan."""

from __future__ import annotations

import datetime
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.simulation.scanners import VENDORS

SAMPLINGS = ("full", "uniform", "poisson", "random")
CALIBRATIONS = ("embedded", "separate", "external", "interleaved", "none")
CALIBRATION_REPETITIONS = ("each", "first")
SLICE_ORDERS = ("sequential", "interleaved")
COIL_MAPS = ("birdcage", "random")


@dataclass(frozen=True)
class SimulationSettings:
    """Everything that defines a simulated scan; the same settings give the same file.

    Attributes
    ----------
    matrix
        Encoded samples along x (readout, before oversampling), y (E1) and z (E2), even or odd; z > 1 is a
        3D scan.
    field_of_view_mm
        Encoded field of view (x, y, z) before oversampling; z is the thickness of the slice or of the slab.
    recon_matrix, recon_field_of_view_mm
        Reconstructed matrix and field of view (x, y, z), None for the encoded ones. A smaller field of view
        along y or z is phase oversampling, a larger matrix zero-filled interpolation.
    slices
        Number of slices (2D) or slabs (3D).
    slice_gap_mm
        Gap between slices.
    slice_order
        "sequential", or "interleaved" (0, 2, 4, …, 1, 3, …). `idx.slice` is the slice's place in space.
    position_mm
        Centre of the stack of slices in patient coordinates (LPS).
    rotation_degrees
        Rotation of the stack about the patient's x, then y, then z axis; (0, 0, 0) is transversal.
    coils
        Number of receive channels.
    coil_maps
        "birdcage" (elements on rings around the object) or "random" (smooth maps). One coil is uniform.
    repetitions, averages, sets, contrasts
        Lengths of these loops. Intensity grows over the repetitions by `repetition_change` in all and decays
        over the contrasts (echoes); sets differ in phase; averages differ in noise only.
    repetition_change
        Relative growth of the object's intensity over all repetitions.
    sampling
        "full"; "uniform" (every `acceleration`-th line); "random" (variable density; over E1 in 2D, over
        (E1, E2) in 3D); "poisson" (variable density Poisson-disc over (E1, E2), 3D only).
    acceleration
        Acceleration along E1 (uniform) or in all, calibration included (random, poisson).
    acceleration_e2
        Acceleration along E2 (uniform 3D scans only).
    calibration
        "embedded" (fully sampled centre), "separate" (a block of its own, of all slices before the imaging
        lines), "external" (as separate, from a sequence of other contrast), "interleaved" (each repetition
        shifts the uniform pattern by a line) or "none". Full sampling has no embedded calibration lines.
    calibration_lines, calibration_lines_e2
        Size of the calibration block along E1 and E2 (None: the same along E2, at most z).
    calibration_repetitions
        Whether "each" repetition or only the "first" holds the calibration lines.
    partial_fourier, partial_fourier_e2
        Acquired fraction along E1 and E2, in (0.5, 1]; lines at the start are left out.
    asymmetric_echo
        Acquired fraction of the readout, in (0.5, 1]; samples at the start are left out.
    readout_oversampling
        Oversampling factor of the readout.
    noise_level
        Standard deviation of the real (and of the imaginary) part of a k-space sample, root mean square over
        the coils, relative to the object's maximum.
    noise_covariance
        Noise covariance (coil, coil), Hermitian and positive definite, scaled to a mean diagonal of 1; None
        draws one.
    noise_scan
        Whether the file begins with a noise measurement.
    dwell_time_us, noise_dwell_time_us
        Time of a sample of the imaging readouts and of the noise measurement.
    object_scale
        Size of the object relative to the field of view along x and y; above about 1.07 the phantom folds
        along y, while readout oversampling keeps it whole along x.
    image_phase_rad
        Strength of the smooth image phase of a real-valued object.
    supersampling
        The phantom is drawn on a grid finer by this factor in the plane and band-limited (Gibbs ringing as in
        a real scan).
    vendor
        "SIEMENS", "GE MEDICAL SYSTEMS", "Philips" or "generic" (no vendor in the header).
    tr_ms, te_ms, echo_spacing_ms, ti_ms, flip_angle_deg, sequence_type
        Sequence parameters; echo n is at te_ms + n * echo_spacing_ms.
    protocol_name, series_description, institution
        Texts of the header.
    patient_name, patient_id, patient_birthdate, patient_sex
        Test values of the subject; the sex is "M", "F" or "O".
    study_date, study_time
        Begin of the scan; acquisition time stamps count 2.5 ms ticks since midnight.
    seed
        Seed of the noise, the sampling pattern and the random maps.

    Raises
    ------
    ValueError
        If a field is out of its range; one line names the field, its value and the allowed range.
    """

    matrix: tuple[int, int, int] = (128, 128, 1)
    field_of_view_mm: tuple[float, float, float] = (220.0, 220.0, 5.0)
    recon_matrix: tuple[int, int, int] | None = None
    recon_field_of_view_mm: tuple[float, float, float] | None = None
    slices: int = 1
    slice_gap_mm: float = 0.0
    slice_order: str = "sequential"
    position_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    rotation_degrees: tuple[float, float, float] = (0.0, 0.0, 0.0)
    coils: int = 8
    coil_maps: str = "birdcage"
    repetitions: int = 1
    averages: int = 1
    sets: int = 1
    contrasts: int = 1
    repetition_change: float = 0.2
    sampling: str = "full"
    acceleration: float = 1.0
    acceleration_e2: int = 1
    calibration: str = "embedded"
    calibration_lines: int = 24
    calibration_lines_e2: int | None = None
    calibration_repetitions: str = "each"
    partial_fourier: float = 1.0
    partial_fourier_e2: float = 1.0
    asymmetric_echo: float = 1.0
    readout_oversampling: float = 2.0
    noise_level: float = 0.0
    noise_covariance: NDArray[Any] | None = field(default=None, compare=False)
    noise_scan: bool = False
    dwell_time_us: float = 2.4
    noise_dwell_time_us: float = 20.0
    object_scale: float = 1.0
    image_phase_rad: float = 1.0
    supersampling: int = 2
    vendor: str = "SIEMENS"
    tr_ms: float = 500.0
    te_ms: float = 10.0
    echo_spacing_ms: float = 10.0
    ti_ms: float = 300.0
    flip_angle_deg: float = 70.0
    sequence_type: str = "SpinEcho"
    protocol_name: str = "t1_se_simulated"
    series_description: str = "Simulated brain phantom"
    institution: str = "Simulated Imaging Laboratory"
    patient_name: str = "Phantom^Simulated"
    patient_id: str = "SIM-0001"
    patient_birthdate: datetime.date = datetime.date(1970, 1, 1)
    patient_sex: str = "O"
    study_date: datetime.date = datetime.date(2024, 1, 15)
    study_time: datetime.time = datetime.time(9, 30, 0)
    seed: int = 0

    def __post_init__(self) -> None:
        self._validate_geometry()
        self._validate_loops()
        self._validate_sampling()
        self._validate_signal()

    @property
    def is_3d(self) -> bool:
        """Whether the scan has a second phase-encoding direction (E2)."""
        return self.matrix[2] > 1

    @property
    def readout_samples(self) -> int:
        """Readout samples of the encoded space, oversampling included."""
        return round(self.matrix[0] * self.readout_oversampling)

    @property
    def calibration_shape(self) -> tuple[int, int]:
        """Size of the calibration block along (E1, E2); (0, 0) when the scan has none."""
        wanted = self.calibration in ("separate", "external") or (
            self.calibration == "embedded" and self.sampling != "full"
        )
        if not wanted:
            return 0, 0
        if not self.is_3d:
            return self.calibration_lines, 1
        e2 = self.calibration_lines_e2
        return self.calibration_lines, min(self.calibration_lines, self.matrix[2]) if e2 is None else e2

    @property
    def omitted(self) -> tuple[int, int, int]:
        """Samples left out at the start along (readout, E1, E2) by asymmetric echo and partial Fourier."""
        samples, (_, ny, nz) = self.readout_samples, self.matrix
        return (
            samples - math.ceil(self.asymmetric_echo * samples - 1e-9),
            ny - math.ceil(self.partial_fourier * ny - 1e-9),
            nz - math.ceil(self.partial_fourier_e2 * nz - 1e-9),
        )

    def _validate_geometry(self) -> None:
        triples = [("matrix", self.matrix), ("recon_matrix", self.recon_matrix)]
        for name, sizes in triples:
            if sizes is not None:
                _check(
                    len(sizes) == 3 and all(_is_integer(n) and 1 <= n <= 4096 for n in sizes),
                    name,
                    sizes,
                    "must be three whole numbers (x, y, z) from 1 to 4096",
                )
        _check(min(self.matrix[:2]) >= 4, "matrix", self.matrix, "x and y must be at least 4")
        if self.recon_matrix is not None:
            _check(
                (self.recon_matrix[2] > 1) == self.is_3d,
                "recon_matrix",
                self.recon_matrix,
                "z must be 1 for a 2D scan and above 1 for a 3D scan",
            )
        lengths = [
            ("field_of_view_mm", self.field_of_view_mm),
            ("recon_field_of_view_mm", self.recon_field_of_view_mm),
        ]
        for name, size_mm in lengths:
            if size_mm is not None:
                _check(
                    len(size_mm) == 3 and all(0 < length <= 5000 for length in size_mm),
                    name,
                    size_mm,
                    "must be three lengths (x, y, z) above 0 and up to 5000 mm",
                )
        for name, vector in (("position_mm", self.position_mm), ("rotation_degrees", self.rotation_degrees)):
            _check(
                len(vector) == 3 and all(map(math.isfinite, vector)),
                name,
                vector,
                "must be three finite numbers",
            )
        _check_range("slice_gap_mm", self.slice_gap_mm, 0, 1000)
        _check_choice("slice_order", self.slice_order, SLICE_ORDERS)
        _check_range("readout_oversampling", self.readout_oversampling, 1, 8)
        _check_range("object_scale", self.object_scale, 0.1, 3)
        _check_integer("supersampling", self.supersampling, 1, 4)

    def _validate_loops(self) -> None:
        _check_integer("slices", self.slices, 1, 4096)
        _check_integer("coils", self.coils, 1, 1024)
        for name in ("repetitions", "averages", "sets", "contrasts"):
            _check_integer(name, getattr(self, name), 1, 65535)
        _check_choice("coil_maps", self.coil_maps, COIL_MAPS)
        _check_choice("vendor", self.vendor, tuple(VENDORS))
        _check_choice("patient_sex", self.patient_sex, ("M", "F", "O"))
        for name in ("tr_ms", "te_ms", "echo_spacing_ms"):
            _check_range(name, getattr(self, name), 1e-3, 1e5)
        _check_integer("seed", self.seed, 0, 2**63 - 1)

    def _validate_sampling(self) -> None:
        _check_choice("sampling", self.sampling, SAMPLINGS)
        _check_choice("calibration", self.calibration, CALIBRATIONS)
        _check_choice("calibration_repetitions", self.calibration_repetitions, CALIBRATION_REPETITIONS)
        for name in ("partial_fourier", "partial_fourier_e2", "asymmetric_echo"):
            value = getattr(self, name)
            _check(0.5 < value <= 1, name, value, "must be above 0.5 and up to 1")
        _, ny, nz = self.matrix
        _check_range("acceleration", self.acceleration, 1, ny * nz)
        _check_integer("acceleration_e2", self.acceleration_e2, 1, nz)
        if self.sampling == "full":
            _check(self.acceleration == 1, "acceleration", self.acceleration, 'must be 1 with sampling "full"')
        if self.sampling == "uniform":
            _check(
                float(self.acceleration).is_integer() and self.acceleration <= ny,
                "acceleration",
                self.acceleration,
                f'must be a whole number from 1 to {ny} with sampling "uniform"',
            )
        else:
            _check(
                self.acceleration_e2 == 1,
                "acceleration_e2",
                self.acceleration_e2,
                f'must be 1 with sampling "{self.sampling}"',
            )
        if self.sampling == "poisson":
            _check(self.is_3d, "sampling", self.sampling, "needs a 3D scan (matrix z above 1)")
        if self.calibration == "interleaved":
            _check(
                self.sampling == "uniform",
                "calibration",
                self.calibration,
                f'needs sampling "uniform", not "{self.sampling}"',
            )
            _check(
                self.repetitions >= self.acceleration,
                "repetitions",
                self.repetitions,
                f'must be at least the acceleration ({self.acceleration:g}) with calibration "interleaved"',
            )
        block, omitted = self.calibration_shape, self.omitted[1:]
        names, centres = ("calibration_lines", "calibration_lines_e2"), (ny // 2, nz // 2)
        for name, lines, centre, size, skipped in zip(names, block, centres, (ny, nz), omitted, strict=True):
            if block[0]:
                largest = min(size, 2 * (centre - skipped) + 1)
                _check_integer(name, lines, 1, max(1, largest))
        if self.sampling in ("random", "poisson"):
            available = (ny - omitted[0]) * (nz - omitted[1])
            kept = block[0] * block[1] if self.calibration == "embedded" else 0
            largest_acceleration = available / max(1, kept)
            _check(
                self.acceleration <= largest_acceleration,
                "acceleration",
                self.acceleration,
                f"must be at most {largest_acceleration:.2f}, the calibration block alone takes {kept} lines",
            )

    def _validate_signal(self) -> None:
        _check_range("noise_level", self.noise_level, 0, 1e6)
        _check_range("repetition_change", self.repetition_change, -0.9, 10)
        _check(math.isfinite(self.image_phase_rad), "image_phase_rad", self.image_phase_rad, "must be finite")
        for name in ("dwell_time_us", "noise_dwell_time_us"):
            _check_range(name, getattr(self, name), 1e-3, 1e5)
        if self.noise_scan:
            _check(self.noise_level > 0, "noise_scan", True, "needs a noise_level above 0")
        if self.noise_covariance is not None:
            covariance = np.asarray(self.noise_covariance)
            shape = (self.coils, self.coils)
            _check(covariance.shape == shape, "noise_covariance", covariance.shape, f"its shape must be {shape}")
            positive = np.allclose(covariance, covariance.conj().T) and np.linalg.eigvalsh(covariance)[0] > 0
            if not positive:
                raise ValueError("noise_covariance: must be Hermitian and positive definite")


def _is_integer(value: object) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def _check(allowed: bool, name: str, value: object, rule: str) -> None:
    if not allowed:
        raise ValueError(f"{name}: {value!r} is not allowed, {rule}")


def _check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    _check(value in choices, name, value, f"must be one of {', '.join(choices)}")


def _check_integer(name: str, value: int, minimum: int, maximum: int) -> None:
    _check(
        _is_integer(value) and minimum <= value <= maximum,
        name,
        value,
        f"must be a whole number from {minimum} to {maximum}",
    )


def _check_range(name: str, value: float, minimum: float, maximum: float) -> None:
    _check(minimum <= value <= maximum, name, value, f"must be from {minimum:g} to {maximum:g}")

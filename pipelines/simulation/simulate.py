"""Simulate raw multi-coil Cartesian scans with known truth, as ISMRMRD acquisitions or files."""

from __future__ import annotations

import datetime
import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import ismrmrd
import numpy as np
import scipy.fft
from ismrmrd import hdf5 as ismrmrd_hdf5
from ismrmrd import xsd
from numpy.typing import ArrayLike, NDArray
from xsdata.models.datatype import XmlDate, XmlTime

SAMPLINGS = ("full", "uniform", "poisson", "random")
CALIBRATIONS = ("embedded", "separate", "external", "interleaved", "none")
CALIBRATION_REPETITIONS = ("each", "first")
SLICE_ORDERS = ("sequential", "interleaved")
COIL_MAPS = ("birdcage", "random")

TIME_STAMP_TICK_MS = 2.5
RELATIVE_RECEIVER_NOISE_BANDWIDTH = 0.79
PROTON_GYROMAGNETIC_RATIO_HZ_PER_T = 42.577478518e6
T2_STAR_MS = 50.0
EXTERNAL_CALIBRATION_INTENSITY = 0.5
"""An external calibration scan comes from another sequence: other intensity, no image phase."""
CACHE_BYTES = 192 << 20
"""Simulated k-space kept for the next repetition; scans beyond it are computed again."""


@dataclass(frozen=True)
class _Scanner:
    """What the header says about the system of one vendor."""

    vendor: str | None
    model: str | None
    field_strength_t: float
    coil_name: str


VENDORS = {
    "SIEMENS": _Scanner("SIEMENS", "Skyra", 2.89362, "HeadNeck_20:1:H{}"),
    "GE MEDICAL SYSTEMS": _Scanner("GE MEDICAL SYSTEMS", "SIGNA Premier", 3.0, "48HeadCoil:{}"),
    "Philips": _Scanner("Philips", "Ingenia", 3.0, "dS-Head-32ch:{}"),
    "generic": _Scanner(None, None, 1.5, "Coil {}"),
}

PHANTOM = np.array(
    [
        # intensity, semi-axes x y z, centre x y z (half fields of view), angle in the x-y plane (degrees)
        [0.70, 0.70, 0.93, 0.93, 0.00, 0.00, 0.00, 0],  # scalp
        [-0.62, 0.66, 0.88, 0.89, 0.00, 0.00, 0.00, 0],  # skull
        [0.47, 0.62, 0.83, 0.84, 0.00, 0.01, 0.00, 0],  # grey matter
        [0.17, 0.49, 0.68, 0.62, 0.00, 0.02, 0.05, 0],  # white matter
        [-0.45, 0.10, 0.30, 0.34, -0.15, -0.06, 0.08, 14],  # left ventricle
        [-0.45, 0.09, 0.27, 0.30, 0.15, -0.04, 0.10, -14],  # right ventricle
        [-0.12, 0.11, 0.14, 0.20, -0.22, 0.18, -0.10, 0],  # left basal ganglia
        [-0.12, 0.11, 0.14, 0.20, 0.22, 0.18, -0.10, 0],  # right basal ganglia
        [-0.30, 0.03, 0.10, 0.12, 0.00, 0.28, -0.05, 0],  # third ventricle
        [0.12, 0.38, 0.20, 0.30, 0.00, 0.52, -0.50, 0],  # cerebellum
        [0.24, 0.07, 0.05, 0.10, 0.33, -0.36, 0.12, 30],  # lesion
        [0.20, 0.03, 0.03, 0.60, -0.30, -0.40, 0.00, 0],  # small round structures, to see resolution
        [0.20, 0.02, 0.02, 0.60, -0.22, -0.48, 0.00, 0],
        [0.20, 0.012, 0.012, 0.60, -0.16, -0.53, 0.00, 0],
        [0.25, 0.10, 0.09, 0.15, -0.24, -0.66, -0.42, 0],  # left eye
        [0.25, 0.10, 0.09, 0.15, 0.24, -0.66, -0.42, 0],  # right eye
    ]
)


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


class Simulation:
    """A simulated scan: header, acquisitions made one slice at a time, and the truth.

    Parameters
    ----------
    settings
        The scan.
    images
        Object to scan instead of the phantom: (slice, y, x), in 3D (z, y, x) or (slab, z, y, x); real or
        complex, any in-plane size, covering `object_scale` times the encoded field of view. Of the same size
        as the matrix it is used exactly, otherwise band-limited to it. Real images get a smooth phase.

    Attributes
    ----------
    settings : SimulationSettings
    header : ismrmrd.xsd.ismrmrdHeader
    sampling_mask : (repetition, E1, E2) bool, the imaging lines on the encoded grid (k = 0 at n // 2)
    calibration_mask : (E1, E2) bool, the calibration block on the same grid
    noise_covariance : (coil, coil) complex128, E[n n^H] of the imaging samples

    Raises
    ------
    ValueError
        If the images do not fit the settings.
    """

    def __init__(self, settings: SimulationSettings, images: ArrayLike | None = None) -> None:
        self.settings = settings
        self._images = None if images is None else _checked_images(settings, np.asarray(images))
        self.header = _header(settings)
        self.calibration_mask = _calibration_mask(settings)
        self.sampling_mask = _sampling_masks(settings, self.calibration_mask)
        maximum = 1.0 if self._images is None else float(np.abs(self._images).max())
        self.noise_covariance = _noise_covariance(settings) * 2 * (settings.noise_level * maximum) ** 2
        whitens = settings.noise_scan and settings.noise_level > 0
        self._prewhitener = (
            math.sqrt(2) * np.linalg.inv(np.linalg.cholesky(self.noise_covariance))
            if whitens
            else np.eye(settings.coils, dtype=np.complex128)
        )
        self._maps = _CoilMaps(settings)
        self._stored_positions = self.sampling_mask.any(axis=0) | self.calibration_mask
        self._truth: list[NDArray[np.float32] | None] = [None] * settings.slices
        self._cache: dict[tuple[int, bool], NDArray[np.complex64]] = {}

    @property
    def truth(self) -> NDArray[np.float32]:
        """Root sum of squares of the noise-free, fully sampled coil images on the recon grid.

        With a noise scan the coil images are prewhitened, as the chain that reads the scan makes them: the unit is
        then the standard deviation of the real part of a sample's noise.

        float32 (repetition, slice, y, x), in 3D (repetition, slice, z, y, x); first contrast and set. Intensities
        are those of the centred orthonormal inverse FFT of the encoded k-space. Slices that no acquisition was made
        of yet are computed now.
        """
        for number, image in enumerate(self._truth):
            if image is None:
                self._simulate_slice(number)
        base = np.stack([image for image in self._truth if image is not None])
        growth = [self.intensity(repetition) for repetition in range(self.settings.repetitions)]
        truth: NDArray[np.float32] = np.stack([np.float32(factor) * base for factor in growth])
        return truth if self.settings.is_3d else truth[:, :, 0]

    @property
    def number_of_acquisitions(self) -> int:
        """How many acquisitions `acquisitions` yields."""
        s = self.settings
        imaging = sum(len(self._lines(repetition)[0]) for repetition in range(s.repetitions))
        calibration = int(self.calibration_mask.sum()) * sum(map(self._has_prescan, range(s.repetitions)))
        return self._noise_readouts + s.slices * (imaging * s.averages * s.sets * s.contrasts + calibration)

    def intensity(self, repetition: int = 0, contrast: int = 0) -> float:
        """Intensity of a repetition and contrast relative to the first."""
        s = self.settings
        growth = 1 + s.repetition_change * repetition / s.repetitions
        return growth * math.exp(-contrast * s.echo_spacing_ms / T2_STAR_MS)

    def coil_images(self, slice_number: int) -> NDArray[np.complex64]:
        """Noise-free coil images on the encoded grid.

        complex64 (coil, z, y, x) with the oversampled readout x; the fully sampled k-space is their centred
        orthonormal FFT. What of the object lies outside the field of view is folded into it.
        """
        return self._coil_images(slice_number, external=False)

    def acquisitions(self) -> Iterator[ismrmrd.Acquisition]:
        """Yield the acquisitions in the order of measurement; each call gives the same ones."""
        s = self.settings
        clock = _Clock(s)
        yield from self._noise_scan(clock)
        last_of_all = s.repetitions - 1
        order = slice_order(s)
        for repetition in range(s.repetitions):
            if self._has_prescan(repetition):
                for number in order:
                    yield from self._calibration_block(clock, repetition, number)
            for number in order:
                repetition_flags = 0
                if number == order[0]:
                    repetition_flags |= 1 << ismrmrd.ACQ_FIRST_IN_REPETITION - 1
                end_flags = 1 << ismrmrd.ACQ_LAST_IN_SLICE - 1
                if number == order[-1]:
                    end_flags |= 1 << ismrmrd.ACQ_LAST_IN_REPETITION - 1
                    if repetition == last_of_all:
                        end_flags |= 1 << ismrmrd.ACQ_LAST_IN_MEASUREMENT - 1
                begin_flags = repetition_flags | 1 << ismrmrd.ACQ_FIRST_IN_SLICE - 1
                yield from self._imaging_lines(clock, repetition, number, begin_flags, end_flags)

    def _has_prescan(self, repetition: int) -> bool:
        s = self.settings
        return s.calibration in ("separate", "external") and (repetition == 0 or s.calibration_repetitions == "each")

    def _lines(self, repetition: int) -> tuple[NDArray[np.intp], list[int]]:
        """Positions (line, 2) as (E2, E1) in order of measurement, and the calibration flags of each."""
        s = self.settings
        imaging = self.sampling_mask[repetition]
        acquired, calibration = imaging, np.zeros_like(imaging)
        if s.calibration == "embedded" and (repetition == 0 or s.calibration_repetitions == "each"):
            calibration = self.calibration_mask
            acquired = imaging | calibration
        elif s.calibration == "interleaved":
            calibration = imaging
        positions = np.argwhere(acquired.T)
        only = 1 << ismrmrd.ACQ_IS_PARALLEL_CALIBRATION - 1
        both = 1 << ismrmrd.ACQ_IS_PARALLEL_CALIBRATION_AND_IMAGING - 1
        flags = [0 if not calibration[e1, e2] else both if imaging[e1, e2] else only for e2, e1 in positions.tolist()]
        return positions, flags

    @property
    def _noise_readouts(self) -> int:
        """Enough samples that the estimated covariance is good to a tenth."""
        s = self.settings
        return math.ceil(100 * s.coils / s.readout_samples) if s.noise_scan else 0

    def _noise_scan(self, clock: _Clock) -> Iterator[ismrmrd.Acquisition]:
        s = self.settings
        # Noise power goes with the receiver's bandwidth, hence with the inverse dwell time.
        scale = s.dwell_time_us / s.noise_dwell_time_us * RELATIVE_RECEIVER_NOISE_BANDWIDTH
        noise = _Noise(self.noise_covariance * scale, (s.seed, 1))
        for _ in range(self._noise_readouts):
            head = clock.next_header(s.readout_samples, s.tr_ms)
            head.sample_time_us = s.noise_dwell_time_us
            head.flags = 1 << ismrmrd.ACQ_IS_NOISE_MEASUREMENT - 1
            yield ismrmrd.Acquisition(head, noise.draw(s.readout_samples))

    def _calibration_block(self, clock: _Clock, repetition: int, number: int) -> Iterator[ismrmrd.Acquisition]:
        s = self.settings
        samples = self._simulate_slice(number, external=s.calibration == "external")
        noise = _Noise(self.noise_covariance, (s.seed, 2, repetition, number))
        row_of = self._row_of_position()
        for e2, e1 in np.argwhere(self.calibration_mask.T).tolist():
            data = self._with_noise(samples[row_of[e1, e2]], self.intensity(repetition), noise)
            head = clock.next_header(data.shape[1], s.tr_ms / s.slices)
            self._set_counters(head, e1, e2, number, repetition)
            head.flags = 1 << ismrmrd.ACQ_IS_PARALLEL_CALIBRATION - 1
            yield ismrmrd.Acquisition(head, data)

    def _imaging_lines(
        self, clock: _Clock, repetition: int, number: int, begin_flags: int, end_flags: int
    ) -> Iterator[ismrmrd.Acquisition]:
        s = self.settings
        samples = self._simulate_slice(number)
        noise = _Noise(self.noise_covariance, (s.seed, 3, repetition, number))
        row_of = self._row_of_position()
        positions, calibration_flags = self._lines(repetition)
        loop_flags = _phase_encoding_flags(positions[:, 0])
        last = len(positions) - 1
        for average in range(s.averages):
            for set_number in range(s.sets):
                for line, (e2, e1) in enumerate(positions.tolist()):
                    for contrast in range(s.contrasts):
                        begins, ends = (line, contrast) == (0, 0), (line, contrast) == (last, s.contrasts - 1)
                        first_set, last_set = set_number == 0, set_number == s.sets - 1
                        flags = calibration_flags[line] | loop_flags[line]
                        flags |= _bits(
                            (line == 0, ismrmrd.ACQ_FIRST_IN_CONTRAST),
                            (line == last, ismrmrd.ACQ_LAST_IN_CONTRAST),
                            (begins, ismrmrd.ACQ_FIRST_IN_SET),
                            (ends, ismrmrd.ACQ_LAST_IN_SET),
                            (begins and first_set, ismrmrd.ACQ_FIRST_IN_AVERAGE),
                            (ends and last_set, ismrmrd.ACQ_LAST_IN_AVERAGE),
                        )
                        if begins and first_set and average == 0:
                            flags |= begin_flags
                        if ends and last_set and average == s.averages - 1:
                            flags |= end_flags
                        factor = self.intensity(repetition, contrast) * np.exp(0.5j * set_number)
                        data = self._with_noise(samples[row_of[e1, e2]], factor, noise)
                        pause = s.tr_ms / s.slices if contrast == 0 else 0.0
                        head = clock.next_header(data.shape[1], pause, contrast * s.echo_spacing_ms)
                        self._set_counters(head, e1, e2, number, repetition)
                        head.idx.average, head.idx.set, head.idx.contrast = average, set_number, contrast
                        head.flags = flags
                        yield ismrmrd.Acquisition(head, data)

    def _row_of_position(self) -> NDArray[np.intp]:
        """Index of each (E1, E2) position in the stored samples of a slice."""
        rows = np.cumsum(self._stored_positions.ravel()) - 1
        return rows.reshape(self._stored_positions.shape)

    def _with_noise(self, samples: NDArray[np.complex64], factor: complex, noise: _Noise) -> NDArray[np.complex64]:
        data = np.complex64(factor) * samples
        if self.settings.noise_level > 0:
            data += noise.draw(samples.shape[1])
        return data

    def _set_counters(self, head: Any, e1: int, e2: int, number: int, repetition: int) -> None:
        s = self.settings
        skipped, skipped_e1, skipped_e2 = s.omitted
        head.idx.kspace_encode_step_1 = e1 - skipped_e1
        head.idx.kspace_encode_step_2 = e2 - skipped_e2
        head.idx.slice = number
        head.idx.repetition = repetition
        head.center_sample = s.readout_samples // 2 - skipped
        head.sample_time_us = s.dwell_time_us
        head.position[:] = slice_position_mm(s, number)

    def _simulate_slice(self, number: int, external: bool = False) -> NDArray[np.complex64]:
        """Noise-free k-space (position, coil, sample) of all measured positions; notes the truth."""
        if (number, external) in self._cache:
            return self._cache[number, external]
        s = self.settings
        images = self._coil_images(number, external)
        skipped = s.omitted[0]
        positions = self._stored_positions
        samples = np.empty((int(positions.sum()), s.coils, s.readout_samples - skipped), np.complex64)
        for coil, image in enumerate(images):
            kspace = fft_centred(image, (0, 1, 2))
            samples[:, coil] = kspace.transpose(1, 0, 2)[positions][:, skipped:]
        if not external and self._truth[number] is None:
            rows = (np.tensordot(row, images, 1) for row in self._prewhitener.astype(np.complex64))
            self._truth[number] = np.sqrt(sum(np.abs(to_recon_grid(s, image)) ** 2 for image in rows))
        if samples.nbytes + sum(kept.nbytes for kept in self._cache.values()) > CACHE_BYTES:
            self._cache.clear()
        self._cache[number, external] = samples
        return samples

    def _coil_images(self, number: int, external: bool) -> NDArray[np.complex64]:
        s = self.settings
        nx, ny, nz = s.matrix
        images = np.zeros((s.coils, nz, ny, s.readout_samples), np.complex64)
        # The object's own grid at the acquired pixel size, before it folds into the field of view.
        grid = (max(ny, round(s.object_scale * ny)), max(nx, round(s.object_scale * nx)))
        # Placed where RemoveROOversamplingGadget crops, which for odd sizes is not about the centre.
        margin = (s.readout_samples - grid[1]) // 2
        inside = slice(margin, margin + grid[1])
        for partition in range(nz):
            z = _partition_coordinate(s, number, partition)
            if self._images is None:
                shape = (s.supersampling * grid[0], s.supersampling * grid[1])
                y = _coordinates(shape[0], ny * s.supersampling)
                x = _coordinates(shape[1], nx * s.supersampling)
                drawn = phantom(y / s.object_scale, x / s.object_scale, z)
            else:
                drawn = self._images[number, partition]
                shape = (drawn.shape[0], drawn.shape[1])
                y = _coordinates(shape[0], shape[0] * ny / grid[0])
                x = _coordinates(shape[1], shape[1] * nx / grid[1])
            image = drawn.astype(np.complex64)
            if external:
                image = np.complex64(EXTERNAL_CALIBRATION_INTENSITY) * np.abs(image)
            elif not np.iscomplexobj(drawn):
                phase = 0.6 * x + 0.8 * y[:, None] ** 2 - 0.5 * y[:, None] * x + 0.4 * z
                image *= np.exp(1j * s.image_phase_rad * phase)
            for coil in range(s.coils):
                received = image * self._maps(coil, z, y, x)
                if shape != grid:
                    received = resample(received, grid, (0, 1))
                received = fold(received, ny, 0)
                if grid[1] > s.readout_samples:
                    images[coil, partition] = fold(received, s.readout_samples, 1)
                else:
                    images[coil, partition, :, inside] = received
        return images


def simulate(settings: SimulationSettings, images: ArrayLike | None = None) -> Simulation:
    """Prepare a simulated scan; k-space is computed when its acquisitions or its truth are asked for.

    Parameters
    ----------
    settings
        The scan.
    images
        Object to scan instead of the phantom, see `Simulation`.

    Raises
    ------
    ValueError
        If the images do not fit the settings.
    """
    return Simulation(settings, images)


def write_raw(
    path: str | os.PathLike[str], simulation: Simulation, progress: Callable[[int], None] | None = None
) -> None:
    """Write a simulated scan as an ISMRMRD HDF5 file, with the truth beside the raw data.

    The group `dataset` holds `xml`, `data` and `truth` (float32, axes named in its attribute `axes`). The
    file appears under its name only when it is complete.

    Parameters
    ----------
    path
        File to write; an existing one is replaced.
    simulation
        The scan.
    progress
        Called with the number of acquisitions written by each block.
    """
    target = Path(path)
    unfinished = target.with_name(f".{target.name}.{os.getpid()}.part")
    block_length = 128
    try:
        with h5py.File(unfinished, "w") as file:
            group = file.create_group("dataset")
            group.create_dataset("xml", (1,), dtype=h5py.special_dtype(vlen=bytes))
            group["xml"][0] = xsd.ToXML(simulation.header).encode()
            data = group.create_dataset(
                "data",
                (simulation.number_of_acquisitions,),
                ismrmrd_hdf5.acquisition_dtype,
                maxshape=(None,),
                chunks=(block_length,),
            )
            block: list[ismrmrd.Acquisition] = []
            written = 0
            for acquisition in simulation.acquisitions():
                block.append(acquisition)
                if len(block) == block_length or written + len(block) == data.shape[0]:
                    data[written : written + len(block)] = _records(block)
                    written += len(block)
                    if progress is not None:
                        progress(len(block))
                    block = []
            truth = group.create_dataset("truth", data=simulation.truth)
            truth.attrs["axes"] = "repetition slice z y x" if simulation.settings.is_3d else "repetition slice y x"
        os.replace(unfinished, target)
    finally:
        with suppress(FileNotFoundError):
            unfinished.unlink()


def slice_order(settings: SimulationSettings) -> list[int]:
    """Slice numbers in the order they are measured."""
    numbers = list(range(settings.slices))
    return numbers if settings.slice_order == "sequential" else numbers[::2] + numbers[1::2]


def directions(
    settings: SimulationSettings,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Unit vectors (read, phase, slice) in patient coordinates (LPS)."""
    a, b, c = np.deg2rad(settings.rotation_degrees)
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    about_z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    rotation = about_z @ about_y @ about_x
    return rotation[:, 0], rotation[:, 1], rotation[:, 2]


def slice_position_mm(settings: SimulationSettings, number: int) -> NDArray[np.float64]:
    """Centre of a slice in patient coordinates (LPS), in mm."""
    spacing = settings.field_of_view_mm[2] + settings.slice_gap_mm
    offset = (number - (settings.slices - 1) / 2) * spacing
    position: NDArray[np.float64] = np.asarray(settings.position_mm) + offset * directions(settings)[2]
    return position


def phantom(y: NDArray[np.float64], x: NDArray[np.float64], z: float) -> NDArray[np.float32]:
    """Draw one plane of a brain-like phantom of ellipsoids, after Shepp and Logan.

    Parameters
    ----------
    y, x, z
        Coordinates in half fields of view, rows y (points), columns x (points) and the plane z.

    Returns
    -------
    float32 (y, x), the sum of the intensities of the ellipsoids a point lies in, 0 to 1.
    """
    image = np.zeros((y.size, x.size), np.float32)
    for intensity, a, b, c, x0, y0, z0, angle in PHANTOM:
        # A plane cuts an ellipsoid in an ellipse, its semi-axes shrunk with the distance from the centre.
        shrink = 1 - ((z - z0) / c) ** 2
        if shrink <= 0:
            continue
        cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        along = (x - x0) * cosine + (y[:, None] - y0) * sine
        across = (y[:, None] - y0) * cosine - (x - x0) * sine
        image[(along / a) ** 2 + (across / b) ** 2 <= shrink] += intensity
    return image


def fft_centred(array: NDArray[Any], axes: Sequence[int]) -> NDArray[np.complex64]:
    """Centred orthonormal FFT, in complex64; the centre is index n // 2."""
    transformed = scipy.fft.fftn(scipy.fft.ifftshift(array, axes), axes=axes, norm="ortho", overwrite_x=True)
    kspace: NDArray[np.complex64] = scipy.fft.fftshift(transformed, axes)
    return kspace


def ifft_centred(array: NDArray[Any], axes: Sequence[int]) -> NDArray[np.complex64]:
    """Centred orthonormal inverse FFT, in complex64; the centre is index n // 2."""
    transformed = scipy.fft.ifftn(scipy.fft.ifftshift(array, axes), axes=axes, norm="ortho", overwrite_x=True)
    image: NDArray[np.complex64] = scipy.fft.fftshift(transformed, axes)
    return image


def crop_or_pad(array: NDArray[Any], shape: Sequence[int], axes: Sequence[int]) -> NDArray[Any]:
    """Crop or zero-pad axes about the centre (index n // 2)."""
    new_shape = list(array.shape)
    source, target = [slice(None)] * array.ndim, [slice(None)] * array.ndim
    for axis, size in zip(axes, shape, strict=True):
        shift = array.shape[axis] // 2 - size // 2
        length = min(array.shape[axis], size)
        begin = max(0, shift)
        source[axis] = slice(begin, begin + length)
        target[axis] = slice(begin - shift, begin - shift + length)
        new_shape[axis] = size
    result = np.zeros(new_shape, array.dtype)
    result[tuple(target)] = array[tuple(source)]
    return result


def resample(image: NDArray[Any], shape: Sequence[int], axes: Sequence[int]) -> NDArray[Any]:
    """Change the matrix over the same field of view by cropping or zero-filling k-space; intensities stay."""
    scale = math.sqrt(math.prod(shape) / math.prod(image.shape[axis] for axis in axes))
    kspace = crop_or_pad(fft_centred(image, axes), shape, axes)
    return np.complex64(scale) * ifft_centred(kspace, axes)


def fold(image: NDArray[Any], size: int, axis: int) -> NDArray[Any]:
    """Fold an axis into a field of view of `size` pixels, as too few k-space lines do."""
    length = image.shape[axis]
    if length == size:
        return image
    source = np.moveaxis(image, axis, 0)
    folded = np.zeros((size, *source.shape[1:]), image.dtype)
    done, place = 0, (size // 2 - length // 2) % size
    while done < length:
        step = min(size - place, length - done)
        folded[place : place + step] += source[done : done + step]
        done, place = done + step, 0
    return np.moveaxis(folded, 0, axis)


def to_recon_grid(settings: SimulationSettings, image: NDArray[Any]) -> NDArray[Any]:
    """Bring an image (z, y, x) of the encoded grid to the reconstructed field of view and matrix.

    Each axis is interpolated in k-space to the pixel size of the recon space, then cropped to its matrix
    from pixel (n - size) // 2 on, as Gadgetron does.
    """
    encoded, recon = (_encoding_space(settings, recon=recon) for recon in (False, True))
    for axis, name in enumerate("zyx"):
        size = getattr(recon.matrixSize, name)
        pixels = round(getattr(encoded.fieldOfView_mm, name) / getattr(recon.fieldOfView_mm, name) * size)
        if pixels != image.shape[axis]:
            image = resample(image, (pixels,), (axis,))
        if pixels > size:
            begin = (pixels - size) // 2
            image = image.take(range(begin, begin + size), axis)
        else:
            image = crop_or_pad(image, (size,), (axis,))
    return image


def poisson_disc(
    allowed: NDArray[np.bool_], samples: int, rng: np.random.Generator, density_slope: float = 1.5
) -> NDArray[np.bool_]:
    """Choose samples of a variable density Poisson-disc pattern.

    Candidates are visited in random order and taken when no taken sample lies within a radius that grows from
    the centre outward, r(d) = r0 (1 + density_slope d), d being the distance from the centre relative to the
    edge. r0 is found by bisection, the largest that gives enough samples (dart throwing after Cook, ACM
    Trans. Graph. 5, 1986).

    Parameters
    ----------
    allowed
        (E1, E2) bool, where samples may be taken.
    samples
        Number of samples wanted, at most the number allowed.
    rng
        Source of the order.
    density_slope
        How much sparser the edge is than the centre.

    Returns
    -------
    (E1, E2) bool with exactly `samples` true.
    """
    if samples < 1:
        return np.zeros(allowed.shape, bool)
    height, width = allowed.shape
    e1, e2 = np.mgrid[:height, :width]
    distance = np.hypot((e1 - height // 2) / (height / 2), (e2 - width // 2) / (width / 2))
    stretch = 1 + density_slope * np.minimum(distance, 1)
    order = rng.permutation(np.flatnonzero(allowed))

    def throw(radius: float) -> list[int]:
        """Take candidates in order until there are enough."""
        blocked = np.zeros(allowed.shape, bool)
        taken: list[int] = []
        for candidate in order.tolist():
            row, column = divmod(candidate, width)
            if blocked[row, column]:
                continue
            taken.append(candidate)
            if len(taken) == samples:
                break
            reach = radius * stretch[row, column]
            n = math.floor(reach)
            rows = slice(max(0, row - n), row + n + 1)
            columns = slice(max(0, column - n), column + n + 1)
            blocked[rows, columns] |= np.hypot(e1[rows, columns] - row, e2[rows, columns] - column) <= reach
        return taken

    low, high, best = 0.0, float(max(height, width)), throw(0.0)
    while high - low > 0.005:
        middle = (low + high) / 2
        taken = throw(middle)
        if len(taken) == samples:
            low, best = middle, taken
        else:
            high = middle
    pattern = np.zeros(allowed.size, bool)
    pattern[best] = True
    return pattern.reshape(allowed.shape)


class _Clock:
    """Scan counter and time stamps of consecutive acquisitions, with the header fields common to all."""

    def __init__(self, settings: SimulationSettings) -> None:
        self._count = 0
        time = settings.study_time
        self._start_ms = 1000.0 * (3600 * time.hour + 60 * time.minute + time.second) + time.microsecond / 1000
        self._elapsed_ms = 0.0
        head = ismrmrd.AcquisitionHeader()
        head.version = 1
        head.measurement_uid = 1
        head.available_channels = head.active_channels = settings.coils
        for coil in range(settings.coils):
            head.setChannelActive(coil)
        read, phase, normal = directions(settings)
        head.position[:] = settings.position_mm
        head.read_dir[:], head.phase_dir[:], head.slice_dir[:] = read, phase, normal
        self._common = bytes(head)

    def next_header(self, samples: int, pause_ms: float, echo_ms: float = 0.0) -> Any:
        """Header of an acquisition `pause_ms` after the last excitation, `echo_ms` after the first echo."""
        self._count += 1
        self._elapsed_ms += pause_ms
        head = ismrmrd.AcquisitionHeader.from_buffer_copy(self._common)
        head.scan_counter = self._count
        time_ms = self._start_ms + self._elapsed_ms + echo_ms
        head.acquisition_time_stamp = int(time_ms / TIME_STAMP_TICK_MS) % 2**32
        head.number_of_samples = samples
        return head


class _Noise:
    """Complex Gaussian noise of a given coil covariance E[n n^H]."""

    def __init__(self, covariance: NDArray[Any], seed: Sequence[int]) -> None:
        self._rng = np.random.default_rng(list(seed))
        empty = not covariance.any()
        self._factor = (covariance if empty else np.linalg.cholesky(covariance / 2)).astype(np.complex64)

    def draw(self, samples: int) -> NDArray[np.complex64]:
        """Noise of one readout, complex64 (coil, sample)."""
        white = self._rng.standard_normal((len(self._factor), 2 * samples), np.float32).view(np.complex64)
        coloured: NDArray[np.complex64] = self._factor @ white
        return coloured


class _CoilMaps:
    """Smooth receive sensitivities, defined at every point of space in units of half the field of view."""

    def __init__(self, settings: SimulationSettings) -> None:
        self._kind = settings.coil_maps if settings.coils > 1 else "uniform"
        coils = settings.coils
        if self._kind == "random":
            rng = np.random.default_rng([settings.seed, 4])
            shape = (coils, 3, 3, 3)
            modes = rng.standard_normal(shape) + 1j * rng.standard_normal(shape)
            self._modes = modes / math.sqrt(2 * 27 * coils)
        elif self._kind == "birdcage":
            radius = 1.15 * max(1.0, settings.object_scale)
            rings = min(4, max(1, coils // 12))
            self._angle = 2 * np.pi * np.arange(coils) / coils
            ring_z = np.linspace(-0.4, 0.4, rings) if rings > 1 else np.zeros(1)
            self._centre = np.stack(
                [
                    ring_z[np.arange(coils) % rings],
                    radius * np.sin(self._angle),
                    radius * np.cos(self._angle),
                ],
                axis=1,
            )
            self._width = 0.4 * radius
            self._scale = 1.0
            origin = np.zeros(1)
            self._scale = 1 / math.sqrt(sum(abs(self(coil, 0.0, origin, origin)[0, 0]) ** 2 for coil in range(coils)))

    def __call__(self, coil: int, z: float, y: NDArray[np.float64], x: NDArray[np.float64]) -> NDArray[np.complex64]:
        """Sensitivity (y, x) of one coil in the plane z; the root sum of squares is about 1 at the centre."""
        if self._kind == "uniform":
            return np.ones((y.size, x.size), np.complex64)
        if self._kind == "random":
            frequencies = np.array([-1.0, 0.0, 1.0])
            along_z = np.exp(0.75j * np.pi * frequencies * z)
            along_y = np.exp(0.75j * np.pi * np.outer(y, frequencies))
            along_x = np.exp(0.75j * np.pi * np.outer(frequencies, x))
            plane = np.tensordot(along_z, self._modes[coil], 1)
            return (along_y @ plane @ along_x).astype(np.complex64)
        z0, y0, x0 = self._centre[coil]
        # Elements are twice as long along z as they are wide.
        dx, dy = (x - x0).astype(np.float32), (y - y0).astype(np.float32)[:, None]
        distance_squared = dx**2 + dy**2 + np.float32((0.5 * (z - z0)) ** 2 + self._width**2)
        turn = np.complex64(self._scale * np.exp(-1j * self._angle[coil]))
        # Falls off as the cube of the distance, like the field of a small loop.
        field_map: NDArray[np.complex64] = turn * (dx + 1j * dy) / distance_squared**2
        return field_map


def _coordinates(points: int, points_per_field_of_view: float) -> NDArray[np.float64]:
    return (np.arange(points) - points // 2) / (points_per_field_of_view / 2)


def _partition_coordinate(settings: SimulationSettings, number: int, partition: int) -> float:
    """Place of a partition along the slice direction, in half extents of the object's box."""
    slab = (number - (settings.slices - 1) / 2) * 2 / settings.slices
    if not settings.is_3d:
        return 0.6 * slab
    nz = settings.matrix[2]
    return slab + (partition - nz // 2) / (nz / 2) / settings.slices


def _checked_images(settings: SimulationSettings, images: NDArray[Any]) -> NDArray[Any]:
    """Bring given images to (slice, z, y, x)."""
    axes = "(slab, z, y, x)" if settings.is_3d else "(slice, y, x)"
    count, nz = settings.slices, settings.matrix[2]
    shaped = images
    if settings.is_3d and images.ndim == 3:
        shaped = images[None]
    elif not settings.is_3d and images.ndim == 3:
        shaped = images[:, None]
    elif not settings.is_3d and images.ndim == 2:
        shaped = images[None, None]
    if shaped.ndim != 4 or shaped.shape[:2] != (count, nz) or min(shaped.shape[2:]) < 4:
        wanted = f"({count}, {nz}, y, x)" if settings.is_3d else f"({count}, y, x)"
        raise ValueError(f"images: shape {images.shape} does not fit, must be {axes} = {wanted}")
    if not (np.issubdtype(images.dtype, np.number) and np.isfinite(images).all() and np.abs(images).max() > 0):
        raise ValueError("images: must be finite numbers that are not all zero")
    return shaped


def _noise_covariance(settings: SimulationSettings) -> NDArray[np.complex128]:
    """Noise covariance between coils, mean diagonal 1: what was given, or a random correlated one."""
    coils = settings.coils
    covariance: NDArray[Any]
    if settings.noise_covariance is not None:
        covariance = np.asarray(settings.noise_covariance, np.complex128)
    else:
        rng = np.random.default_rng([settings.seed, 5])
        mixing = rng.standard_normal((coils, coils)) + 1j * rng.standard_normal((coils, coils))
        gain = np.diag(rng.uniform(0.7, 1.3, coils))
        covariance = gain @ (np.eye(coils) + 0.25 * mixing @ mixing.conj().T / coils) @ gain
    scaled: NDArray[np.complex128] = covariance * (coils / np.trace(covariance).real)
    return scaled


def _calibration_mask(settings: SimulationSettings) -> NDArray[np.bool_]:
    _, ny, nz = settings.matrix
    mask = np.zeros((ny, nz), bool)
    lines, lines_e2 = settings.calibration_shape
    begin, begin_e2 = ny // 2 - lines // 2, nz // 2 - lines_e2 // 2
    mask[begin : begin + lines, begin_e2 : begin_e2 + lines_e2] = True
    return mask


def _sampling_masks(settings: SimulationSettings, calibration_mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Imaging lines (repetition, E1, E2) on the encoded grid."""
    _, ny, nz = settings.matrix
    _, skipped, skipped_e2 = settings.omitted
    available = np.zeros((ny, nz), bool)
    available[skipped:, skipped_e2:] = True
    if settings.sampling in ("full", "uniform"):
        step, step_e2 = round(settings.acceleration), settings.acceleration_e2
        on_grid_e2 = (np.arange(nz) - nz // 2) % step_e2 == 0
        masks = []
        for repetition in range(settings.repetitions):
            shift = repetition if settings.calibration == "interleaved" else 0
            on_grid = (np.arange(ny) - ny // 2 - shift) % step == 0
            masks.append(available & on_grid[:, None] & on_grid_e2)
        return np.stack(masks)
    rng = np.random.default_rng([settings.seed, 6])
    centre = calibration_mask if settings.calibration == "embedded" else np.zeros_like(calibration_mask)
    outside = available & ~centre
    samples = min(round(available.sum() / settings.acceleration), int(available.sum())) - int(centre.sum())
    if settings.sampling == "poisson":
        chosen = poisson_disc(outside, samples, rng) if samples > 0 else np.zeros_like(outside)
    else:
        chosen = _random_pattern(outside, samples, rng)
    return np.repeat((chosen | centre)[None], settings.repetitions, axis=0)


def _random_pattern(allowed: NDArray[np.bool_], samples: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Random samples whose density falls with the square of the distance from the edge."""
    height, width = allowed.shape
    e1, e2 = np.mgrid[:height, :width]
    across = 0 if width == 1 else (e2 - width // 2) / (width / 2)
    distance = np.hypot((e1 - height // 2) / (height / 2), across)
    candidates = np.flatnonzero(allowed)
    weight = ((1 - np.minimum(distance, 1)) ** 2 + 0.05).ravel()[candidates]
    pattern = np.zeros(allowed.size, bool)
    pattern[rng.choice(candidates, max(0, samples), replace=False, p=weight / weight.sum())] = True
    return pattern.reshape(allowed.shape)


def _phase_encoding_flags(e2: NDArray[np.intp]) -> list[int]:
    """First and last flags of the E1 loop of each E2 and of the E2 loop, lines sorted by E2, then E1."""
    last = len(e2) - 1
    flags = []
    for line in range(len(e2)):
        flags.append(
            _bits(
                (line == 0 or e2[line] != e2[line - 1], ismrmrd.ACQ_FIRST_IN_ENCODE_STEP1),
                (line == last or e2[line] != e2[line + 1], ismrmrd.ACQ_LAST_IN_ENCODE_STEP1),
                (line == 0, ismrmrd.ACQ_FIRST_IN_ENCODE_STEP2),
                (line == last, ismrmrd.ACQ_LAST_IN_ENCODE_STEP2),
            )
        )
    return flags


def _bits(*flags: tuple[bool, int]) -> int:
    """Flag word of those ISMRMRD flags (numbered from 1) whose condition holds."""
    return sum(1 << number - 1 for condition, number in flags if condition)


def _records(block: Sequence[ismrmrd.Acquisition]) -> NDArray[np.void]:
    """Acquisitions as rows of the HDF5 table."""
    records = np.empty(len(block), ismrmrd_hdf5.acquisition_dtype)
    for record, acquisition in zip(records, block, strict=True):
        record["head"] = np.frombuffer(acquisition.getHead(), ismrmrd_hdf5.acquisition_header_dtype)[0]
        record["traj"] = np.empty(0, np.float32)
        record["data"] = acquisition.data.view(np.float32).ravel()
    return records


def _encoding_space(settings: SimulationSettings, recon: bool) -> Any:
    x, y, z = settings.matrix
    x_mm, y_mm, z_mm = settings.field_of_view_mm
    if recon:
        x, y, z = settings.recon_matrix or settings.matrix
        x_mm, y_mm, z_mm = settings.recon_field_of_view_mm or settings.field_of_view_mm
    else:
        x_mm, x = x_mm * settings.readout_samples / x, settings.readout_samples
    return xsd.encodingSpaceType(
        matrixSize=xsd.matrixSizeType(x=x, y=y, z=z),
        fieldOfView_mm=xsd.fieldOfViewMm(x=float(x_mm), y=float(y_mm), z=float(z_mm)),
    )


def _encoding(settings: SimulationSettings) -> Any:
    s = settings
    _, ny, nz = s.matrix
    _, skipped, skipped_e2 = s.omitted

    def limit(length: int, centre: int = 0) -> Any:
        return xsd.limitType(minimum=0, maximum=length - 1, center=centre)

    modes = xsd.calibrationModeType
    mode = modes.OTHER if s.calibration == "none" else modes(s.calibration)
    acceleration = xsd.accelerationFactorType(
        kspace_encoding_step_1=round(s.acceleration), kspace_encoding_step_2=s.acceleration_e2
    )
    interleaving = xsd.interleavingDimensionType.REPETITION if s.calibration == "interleaved" else None
    return xsd.encodingType(
        encodedSpace=_encoding_space(s, recon=False),
        reconSpace=_encoding_space(s, recon=True),
        encodingLimits=xsd.encodingLimitsType(
            kspace_encoding_step_1=limit(ny - skipped, ny // 2 - skipped),
            kspace_encoding_step_2=limit(nz - skipped_e2, nz // 2 - skipped_e2),
            average=limit(s.averages),
            slice=limit(s.slices),
            contrast=limit(s.contrasts),
            phase=limit(1),
            repetition=limit(s.repetitions),
            set=limit(s.sets),
            segment=limit(1),
        ),
        trajectory=xsd.trajectoryType.CARTESIAN,
        parallelImaging=xsd.parallelImagingType(
            accelerationFactor=acceleration, calibrationMode=mode, interleavingDimension=interleaving
        ),
    )


def _header(settings: SimulationSettings) -> Any:
    s = settings
    scanner = VENDORS[s.vendor]
    date = XmlDate.from_date(s.study_date)
    time = XmlTime.from_time(s.study_time)
    lines, lines_e2 = s.calibration_shape
    parameters = []
    if s.calibration == "embedded" and lines:
        parameters.append(xsd.userParameterLongType(name="EmbeddedRefLinesE1", value=lines))
        if s.is_3d:
            parameters.append(xsd.userParameterLongType(name="EmbeddedRefLinesE2", value=lines_e2))
    sampling = xsd.userParameterStringType(name="SamplingPattern", value=s.sampling)
    return xsd.ismrmrdHeader(
        subjectInformation=xsd.subjectInformationType(
            patientName=s.patient_name,
            patientWeight_kg=70.0,
            patientID=s.patient_id,
            patientBirthdate=XmlDate.from_date(s.patient_birthdate),
            patientGender=s.patient_sex,
        ),
        studyInformation=xsd.studyInformationType(
            studyDate=date,
            studyTime=time,
            studyID="1",
            studyDescription="Simulated study",
            studyInstanceUID=_uid(s, 1),
            bodyPartExamined="BRAIN",
        ),
        measurementInformation=xsd.measurementInformationType(
            measurementID=f"simulated_{s.study_date:%Y%m%d}_{s.seed}",
            seriesDate=date,
            seriesTime=time,
            patientPosition=xsd.patientPositionType.HFS,
            initialSeriesNumber=1,
            protocolName=s.protocol_name,
            sequenceName=s.sequence_type,
            seriesDescription=s.series_description,
            seriesInstanceUIDRoot=_uid(s, 2),
            frameOfReferenceUID=_uid(s, 3),
        ),
        acquisitionSystemInformation=xsd.acquisitionSystemInformationType(
            systemVendor=scanner.vendor,
            systemModel=scanner.model,
            systemFieldStrength_T=scanner.field_strength_t,
            relativeReceiverNoiseBandwidth=RELATIVE_RECEIVER_NOISE_BANDWIDTH,
            receiverChannels=s.coils,
            coilLabel=[
                xsd.coilLabelType(coilNumber=coil, coilName=scanner.coil_name.format(coil + 1))
                for coil in range(s.coils)
            ],
            institutionName=s.institution,
            stationName="SIMULATOR",
        ),
        experimentalConditions=xsd.experimentalConditionsType(
            H1resonanceFrequency_Hz=round(PROTON_GYROMAGNETIC_RATIO_HZ_PER_T * scanner.field_strength_t)
        ),
        encoding=[_encoding(s)],
        sequenceParameters=xsd.sequenceParametersType(
            TR=[s.tr_ms],
            TE=[s.te_ms + contrast * s.echo_spacing_ms for contrast in range(s.contrasts)],
            TI=[s.ti_ms],
            flipAngle_deg=[s.flip_angle_deg],
            sequence_type=s.sequence_type,
            echo_spacing=[s.echo_spacing_ms],
        ),
        userParameters=xsd.userParametersType(userParameterLong=parameters, userParameterString=[sampling]),
    )


def _uid(settings: SimulationSettings, kind: int) -> str:
    """DICOM unique identifier of a simulated study, series or frame of reference."""
    # 2.25 is the root for identifiers derived from 128-bit numbers (ISO/IEC 9834-8).
    number = int.from_bytes(np.random.default_rng([settings.seed, 7, kind]).bytes(16), "big")
    return f"2.25.{number}"


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

"""A simulated scan: header, acquisitions and truth."""

from __future__ import annotations

import math
from collections.abc import Iterator

import ismrmrd
import numpy as np
from numpy.typing import ArrayLike, NDArray

from gadgets.twins.fourier import centred_fft
from pipelines.simulation.acquisition_headers import AcquisitionHeaders, bits, phase_encoding_flags
from pipelines.simulation.coils import CoilMaps
from pipelines.simulation.geometry import slice_order
from pipelines.simulation.header import RELATIVE_RECEIVER_NOISE_BANDWIDTH, scan_header
from pipelines.simulation.images import checked_images, coil_images
from pipelines.simulation.noise import Noise, noise_covariance
from pipelines.simulation.resample import to_recon_grid
from pipelines.simulation.sampling import calibration_mask, sampling_masks
from pipelines.simulation.settings import SimulationSettings

T2_STAR_MS = 50.0
CACHE_BYTES = 192 << 20
"""Simulated k-space kept for the next repetition; scans beyond it are computed again."""


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
    prewhitener : (coil, coil) complex128, what a chain multiplies the coils by; the identity without a noise scan

    Raises
    ------
    ValueError
        If the images do not fit the settings.
    """

    def __init__(self, settings: SimulationSettings, images: ArrayLike | None = None) -> None:
        self.settings = settings
        self._images = None if images is None else checked_images(settings, np.asarray(images))
        self.header = scan_header(settings)
        self.calibration_mask = calibration_mask(settings)
        self.sampling_mask = sampling_masks(settings, self.calibration_mask)
        maximum = 1.0 if self._images is None else float(np.abs(self._images).max())
        self.noise_covariance = noise_covariance(settings) * 2 * (settings.noise_level * maximum) ** 2
        whitens = settings.noise_scan and settings.noise_level > 0
        self.prewhitener = (
            math.sqrt(2) * np.linalg.inv(np.linalg.cholesky(self.noise_covariance))
            if whitens
            else np.eye(settings.coils, dtype=np.complex128)
        )
        self._maps = CoilMaps(settings)
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
        return coil_images(self.settings, self._maps, self._images, slice_number)

    def acquisitions(self) -> Iterator[ismrmrd.Acquisition]:
        """Yield the acquisitions in the order of measurement; each call gives the same ones."""
        s = self.settings
        heads = AcquisitionHeaders(s)
        yield from self._noise_scan(heads)
        last_of_all = s.repetitions - 1
        order = slice_order(s)
        for repetition in range(s.repetitions):
            if self._has_prescan(repetition):
                for number in order:
                    yield from self._calibration_block(heads, repetition, number)
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
                yield from self._imaging_lines(heads, repetition, number, begin_flags, end_flags)

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

    def _noise_scan(self, heads: AcquisitionHeaders) -> Iterator[ismrmrd.Acquisition]:
        s = self.settings
        # Noise power goes with the receiver's bandwidth, hence with the inverse dwell time.
        scale = s.dwell_time_us / s.noise_dwell_time_us * RELATIVE_RECEIVER_NOISE_BANDWIDTH
        noise = Noise(self.noise_covariance * scale, (s.seed, 1))
        for _ in range(self._noise_readouts):
            head = heads.next(s.readout_samples, s.tr_ms)
            head.sample_time_us = s.noise_dwell_time_us
            head.flags = 1 << ismrmrd.ACQ_IS_NOISE_MEASUREMENT - 1
            yield ismrmrd.Acquisition(head, noise.draw(s.readout_samples))

    def _calibration_block(
        self, heads: AcquisitionHeaders, repetition: int, number: int
    ) -> Iterator[ismrmrd.Acquisition]:
        s = self.settings
        samples = self._simulate_slice(number, external=s.calibration == "external")
        noise = Noise(self.noise_covariance, (s.seed, 2, repetition, number))
        row_of = self._row_of_position()
        for e2, e1 in np.argwhere(self.calibration_mask.T).tolist():
            data = self._with_noise(samples[row_of[e1, e2]], self.intensity(repetition), noise)
            head = heads.next(data.shape[1], s.tr_ms / s.slices)
            heads.set_counters(head, e1, e2, number, repetition)
            head.flags = 1 << ismrmrd.ACQ_IS_PARALLEL_CALIBRATION - 1
            yield ismrmrd.Acquisition(head, data)

    def _imaging_lines(
        self, heads: AcquisitionHeaders, repetition: int, number: int, begin_flags: int, end_flags: int
    ) -> Iterator[ismrmrd.Acquisition]:
        s = self.settings
        samples = self._simulate_slice(number)
        noise = Noise(self.noise_covariance, (s.seed, 3, repetition, number))
        row_of = self._row_of_position()
        positions, calibration_flags = self._lines(repetition)
        loop_flags = phase_encoding_flags(positions[:, 0])
        last = len(positions) - 1
        for average in range(s.averages):
            for set_number in range(s.sets):
                for line, (e2, e1) in enumerate(positions.tolist()):
                    for contrast in range(s.contrasts):
                        begins, ends = (line, contrast) == (0, 0), (line, contrast) == (last, s.contrasts - 1)
                        first_set, last_set = set_number == 0, set_number == s.sets - 1
                        flags = calibration_flags[line] | loop_flags[line]
                        flags |= bits(
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
                        head = heads.next(data.shape[1], pause, contrast * s.echo_spacing_ms)
                        heads.set_counters(head, e1, e2, number, repetition)
                        head.idx.average, head.idx.set, head.idx.contrast = average, set_number, contrast
                        head.flags = flags
                        yield ismrmrd.Acquisition(head, data)

    def _row_of_position(self) -> NDArray[np.intp]:
        """Index of each (E1, E2) position in the stored samples of a slice."""
        rows = np.cumsum(self._stored_positions.ravel()) - 1
        return rows.reshape(self._stored_positions.shape)

    def _with_noise(self, samples: NDArray[np.complex64], factor: complex, noise: Noise) -> NDArray[np.complex64]:
        data = np.complex64(factor) * samples
        if self.settings.noise_level > 0:
            data += noise.draw(samples.shape[1])
        return data

    def _simulate_slice(self, number: int, external: bool = False) -> NDArray[np.complex64]:
        """Noise-free k-space (position, coil, sample) of all measured positions; keeps the true image."""
        if (number, external) in self._cache:
            return self._cache[number, external]
        s = self.settings
        images = coil_images(s, self._maps, self._images, number, external)
        skipped = s.omitted[0]
        positions = self._stored_positions
        samples = np.empty((int(positions.sum()), s.coils, s.readout_samples - skipped), np.complex64)
        for coil, image in enumerate(images):
            kspace = centred_fft(image, (0, 1, 2))
            samples[:, coil] = kspace.transpose(1, 0, 2)[positions][:, skipped:]
        if not external and self._truth[number] is None:
            rows = (np.tensordot(row, images, 1) for row in self.prewhitener.astype(np.complex64))
            self._truth[number] = np.sqrt(sum(np.abs(to_recon_grid(s, image)) ** 2 for image in rows))
        if samples.nbytes + sum(kept.nbytes for kept in self._cache.values()) > CACHE_BYTES:
            self._cache.clear()
        self._cache[number, external] = samples
        return samples


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

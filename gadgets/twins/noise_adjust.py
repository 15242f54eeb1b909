"""Prewhitening with the noise scan."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import ismrmrd
import numpy as np

from gadgets.acquisition_flags import is_noise
from gadgets.acquisitions import with_data
from gadgets.noise.covariance import SAMPLES_A_COIL, prewhitening_matrix, without_correlation
from gadgets.noise.lines import NoiseLines, known_dwell
from gadgets.noise.quality import NoiseQuality, noise_quality
from gadgets.noise.scan import NoiseScan, measurement_id, noise_dependencies
from gadgets.stream import Gadget, ReconError, parameter

log = logging.getLogger("genrecon")

Array = np.ndarray[Any, np.dtype[Any]]


PREWHITENED = ismrmrd.ACQ_USER8  # flag of the lines that NoiseAdjustGadget prewhitened


def is_prewhitened(headers: Array) -> bool:
    """Whether the noise of a buffer is white, of level 1 in each part: NoiseAdjustGadget prewhitened all its lines.

    The gadget marks these lines with the flag ACQ_USER8, which stays in the headers of buffers and over the wire. The
    C++ gadget of a real Gadgetron sets no mark: False then says that the noise level is not known, not that nothing was
    prewhitened.

    Parameters
    ----------
    headers : object array of ismrmrd.AcquisitionHeader, any shape; places never measured have number_of_samples 0

    Returns
    -------
    bool; False where nothing was measured
    """
    measured = [head for head in headers.flat if head.number_of_samples]
    return bool(measured) and all(head.is_flag_set(PREWHITENED) for head in measured)


class NoiseAdjustGadget(Gadget):
    """Prewhitens with a noise scan: data <- sqrt(2 dwell / noise dwell * bandwidth) L^-1 data.

    The noise is that of another measurement where `noise` has one (replay and serve look it up), else that of the noise
    lines in the stream, of which those after the first other line do not count; lines before the noise pass unchanged.

    Unlike the C++ gadget it marks the lines that it prewhitened with the flag ACQ_USER8 (`is_prewhitened`) and clears
    it on all others. It leaves out discarded samples of noise lines, and noise lines of another coil count or dwell
    time; takes each coil by itself where there are few noise samples; uses `noise_dwell_time_us_preset` (which the C++
    one of version 4.7 does not) where the noise lines have no dwell time; and passes data whose coil count differs from
    the noise's. `scale_only_channels_by_name` means the coils of these names (the C++ one takes their place in the list
    for the coil's number).

    Attributes
    ----------
    noise : of another measurement, its coils in the order of the data's; None: that of the stream
    quality : statistics of the noise that the data are prewhitened with; None before it came
    matrix : (coil, coil) that the latest lines were prewhitened with; None: they were not
    """

    noise: NoiseScan | None = None
    quality: NoiseQuality | None = None
    matrix: Array | None = None

    @dataclass(frozen=True)
    class Parameters:
        perform_noise_adjust: bool = parameter(True, "prewhiten; false passes the data as they are")
        pass_nonconformant_data: bool = parameter(True, "pass data whose coil count differs from the noise's")
        noise_dwell_time_us_preset: float = parameter(
            0.0, "dwell time of a noise scan that gives none, in microseconds; 0: not known", minimum=0.0
        )
        scale_only_channels_by_name: str = parameter("", "coil names, by commas, that are scaled but not mixed")
        noise_dependency_prefix: str = parameter("", "accepted for Gadgetron; not used", same_image=True)
        noise_dependency_folder: str = parameter("", "accepted for Gadgetron; not used", same_image=True)

    def process(self, items: Iterator[Any]) -> Iterator[Any]:
        noise = NoiseLines()
        matrix: Array | None = None
        adjust = self.parameters.perform_noise_adjust
        level_known = False
        warned = False
        unwhitened = 0
        for item in items:
            if not isinstance(item, ismrmrd.Acquisition):
                yield item
                continue
            if is_noise(item):
                if adjust and matrix is None and self.noise is None:
                    noise.add(item)
                continue
            if adjust and matrix is None and (self.noise or noise):
                scan = self.noise or noise.noise(self.header, item.active_channels)
                self._look_at(scan)
                matrix, level_known = self._matrix(scan, known_dwell(item.sample_time_us))
                self.matrix = matrix
                if unwhitened:
                    log.warning(
                        "NoiseAdjustGadget: %d lines came before the noise scan: only the others are prewhitened",
                        unwhitened,
                    )
            if matrix is None:
                unwhitened += 1
                yield _unmarked(item)
            elif item.active_channels == len(matrix):
                line = with_data(_unmarked(item), matrix @ item.data)
                if level_known:
                    line.set_flag(PREWHITENED)
                yield line
            elif self.parameters.pass_nonconformant_data:
                if not warned:
                    log.warning(
                        "NoiseAdjustGadget: the data have %d coils, the noise scan %d; they are not prewhitened",
                        item.active_channels,
                        len(matrix),
                    )
                warned = True
                yield _unmarked(item)
            else:
                raise ReconError(
                    f"gadget NoiseAdjustGadget: acquisition {item.scan_counter} has {item.active_channels} coils, the "
                    f"noise scan {len(matrix)}; set pass_nonconformant_data or check the raw data"
                )
        if adjust and matrix is None and unwhitened:
            self._warn_of_no_noise()

    def _look_at(self, scan: NoiseScan) -> None:
        """Keep the statistics of the noise, and warn of coils that look broken."""
        if scan.too_few_samples or not np.isfinite(scan.covariance).all():
            return
        self.quality = noise_quality(scan)
        for text in self.quality.warnings:
            log.warning("NoiseAdjustGadget: %s", text)

    def _warn_of_no_noise(self) -> None:
        elsewhere = noise_dependencies(self.header)
        where = "; the header names a measurement of it, which is not in this stream" if elsewhere else ""
        log.warning("NoiseAdjustGadget: no noise scan in the stream%s; the data are not prewhitened", where)

    def _matrix(self, noise: NoiseScan, dwell: float) -> tuple[Array, bool]:
        """The matrix, and whether it makes the noise level known: not without both dwell times."""
        if not measurement_id(self.header) and self.noise is None:
            log.warning(
                "NoiseAdjustGadget: measurementInformation/measurementID is missing in the header; "
                "a real Gadgetron stops here, this twin goes on"
            )
        system = self.header.acquisitionSystemInformation
        bandwidth = (system.relativeReceiverNoiseBandwidth if system else None) or 0.793
        noise_dwell = noise.dwell_us or self.parameters.noise_dwell_time_us_preset
        level_known = bool(dwell and noise_dwell)
        scale = np.sqrt(2 * dwell / noise_dwell * bandwidth) if level_known else 1.0
        if not level_known:
            log.warning(
                "NoiseAdjustGadget: the %s has no dwell time (sample_time_us): its noise level is not known",
                "scan" if noise_dwell else "noise scan",
            )
        if noise.too_few_samples:
            log.warning(
                "NoiseAdjustGadget: the noise scan has %d samples of %d coils; each coil is scaled by itself, with "
                "%d samples a coil their correlation is removed, too",
                noise.samples,
                len(noise.covariance),
                SAMPLES_A_COIL,
            )
        covariance = without_correlation(noise.covariance) if noise.too_few_samples else noise.covariance
        names = [name.strip() for name in self.parameters.scale_only_channels_by_name.split(",")]
        labels = [label.coilName for label in system.coilLabel] if system else []
        alone = [channel for channel, label in enumerate(labels[: len(covariance)]) if label in names]
        return prewhitening_matrix(without_correlation(covariance, alone), float(scale)), level_known


def _unmarked(item: ismrmrd.Acquisition) -> ismrmrd.Acquisition:
    """The acquisition without a mark that the raw data came with."""
    if item.is_flag_set(PREWHITENED):
        item = with_data(item, item.data)
        item.clear_flag(PREWHITENED)
    return item

"""Prewhitening with the noise scan."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import ismrmrd
import numpy as np

from gadgets.acquisitions import with_data
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


def noise_covariance(noise: list[Array]) -> Array:
    """Covariance C = N N^H / (n - 1) of noise readouts.

    Parameters
    ----------
    noise : list of complex arrays (coil, sample)

    Returns
    -------
    complex128 array (coil, coil)
    """
    samples = np.concatenate(noise, axis=1).astype(np.complex128)
    return samples @ samples.conj().T / max(samples.shape[1] - 1, 1)


def prewhitening_matrix(covariance: Array, scale: float) -> Array:
    """Matrix scale * L^-1 with C = L L^H, which makes noise white and of variance scale^2.

    Parameters
    ----------
    covariance : complex array (coil, coil)
    scale : factor of the whitened data

    A covariance that has no Cholesky factor (a silent coil, fewer samples than coils) is loaded on its diagonal first.

    Returns complex64 (coil, coil).
    """
    if not np.any(covariance):
        return np.eye(len(covariance), dtype=np.complex64) * np.float32(scale)
    try:
        factor = np.linalg.cholesky(covariance)
    except np.linalg.LinAlgError:
        log.warning("NoiseAdjustGadget: the noise covariance is singular (a silent coil?); its diagonal is loaded")
        loading = 1e-3 * np.trace(covariance).real / len(covariance)
        factor = np.linalg.cholesky(covariance + loading * np.eye(len(covariance)))
    inverse = np.linalg.solve(factor, np.eye(len(covariance)))
    return (scale * inverse).astype(np.complex64)


class NoiseAdjustGadget(Gadget):
    """Prewhitens with the noise scan in the stream: data <- sqrt(2 dwell / noise dwell * bandwidth) L^-1 data.

    Lines before the noise scan pass unchanged. Unlike the C++ gadget it marks the lines that it prewhitened with the
    flag ACQ_USER8 (`is_prewhitened`) and clears it on all others. It has no storage server: a noise scan in another
    file is not looked up, and a warning says so. `scale_only_channels_by_name` means the coils of these names (the C++
    one takes their place in the list for the coil's number).
    """

    @dataclass(frozen=True)
    class Parameters:
        perform_noise_adjust: bool = parameter(True, "prewhiten; false passes the data as they are")
        pass_nonconformant_data: bool = parameter(True, "pass data whose coil count differs from the noise's")
        noise_dwell_time_us_preset: float = parameter(
            0.0, "accepted for Gadgetron; not used", minimum=0.0, same_image=True
        )
        scale_only_channels_by_name: str = parameter("", "coil names, by commas, that are scaled but not mixed")
        noise_dependency_prefix: str = parameter("", "accepted for Gadgetron; not used", same_image=True)
        noise_dependency_folder: str = parameter("", "accepted for Gadgetron; not used", same_image=True)

    def process(self, items: Iterator[Any]) -> Iterator[Any]:
        noise: list[Array] = []
        noise_dwell = 0.0
        matrix: Array | None = None
        adjust = self.parameters.perform_noise_adjust
        warned = False
        unwhitened = 0
        for item in items:
            if not isinstance(item, ismrmrd.Acquisition):
                yield item
                continue
            if item.is_flag_set(ismrmrd.ACQ_IS_NOISE_MEASUREMENT):
                if adjust and matrix is None:
                    noise.append(item.data)
                    noise_dwell = noise_dwell or item.sample_time_us
                continue
            if adjust and matrix is None and noise:
                matrix = self._matrix(noise, noise_dwell, item.sample_time_us)
                noise.clear()
                if unwhitened:
                    log.warning(
                        "NoiseAdjustGadget: %d lines came before the noise scan: only the others are prewhitened",
                        unwhitened,
                    )
            if matrix is None:
                unwhitened += 1
                yield _unmarked(item)
            elif item.active_channels == len(matrix):
                line = with_data(item, matrix @ item.data)
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
        if adjust and matrix is None:
            self._warn_of_no_noise()

    def _warn_of_no_noise(self) -> None:
        information = self.header.measurementInformation
        dependencies = information.measurementDependency if information else []
        elsewhere = any(dependency.dependencyType.lower() == "noise" for dependency in dependencies)
        where = "; the header names a measurement of it, which is not in this stream" if elsewhere else ""
        log.warning("NoiseAdjustGadget: no noise scan in the stream%s; the data are not prewhitened", where)

    def _matrix(self, noise: list[Array], noise_dwell: float, dwell: float) -> Array:
        information = self.header.measurementInformation
        if information is None or not information.measurementID:
            log.warning(
                "NoiseAdjustGadget: measurementInformation/measurementID is missing in the header; "
                "a real Gadgetron stops here, this twin goes on"
            )
        system = self.header.acquisitionSystemInformation
        bandwidth = (system.relativeReceiverNoiseBandwidth if system else None) or 0.793
        scale = np.sqrt(2 * dwell / noise_dwell * bandwidth) if dwell and noise_dwell else 1.0
        covariance = noise_covariance(noise)
        names = [name.strip() for name in self.parameters.scale_only_channels_by_name.split(",")]
        labels = [label.coilName for label in system.coilLabel] if system else []
        for channel, label in enumerate(labels[: len(covariance)]):
            if label in names:
                variance = covariance[channel, channel]
                covariance[channel, :] = covariance[:, channel] = 0
                covariance[channel, channel] = variance
        return prewhitening_matrix(covariance, float(scale))


def _unmarked(item: ismrmrd.Acquisition) -> ismrmrd.Acquisition:
    """The acquisition without a mark that the raw data came with."""
    if item.is_flag_set(PREWHITENED):
        item = with_data(item, item.data)
        item.clear_flag(PREWHITENED)
    return item

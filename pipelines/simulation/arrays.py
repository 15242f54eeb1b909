"""A simulated 2D scan as arrays, for work without files."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gadgets.acquisition_flags import is_noise
from gadgets.twins.fourier import centred_fft
from pipelines.simulation.scan import Simulation


def scan_arrays(scan: Simulation) -> tuple[NDArray[np.complex64], NDArray[np.bool_], NDArray[np.float32]]:
    """K-space, sampling mask and truth of a simulated 2D scan.

    Parameters
    ----------
    scan
        Of one repetition, average, set and contrast, with its calibration lines among the others.

    Returns
    -------
    kspace
        complex64 (slice, coil, y, x), without readout oversampling, zero where nothing was measured. With a noise scan
        it is prewhitened: the noise is white, of standard deviation 1 in each of the real and imaginary parts.
    mask
        bool (y, x), what was measured.
    truth
        float32 (slice, y, x), root sum of squares of the coil images, in the unit of the k-space.

    Raises
    ------
    ValueError
        If the scan is not of that kind.
    """
    s = scan.settings
    loops = s.repetitions * s.averages * s.sets * s.contrasts
    apart = s.calibration in ("separate", "external")
    if s.is_3d or loops > 1 or apart or s.asymmetric_echo < 1 or s.recon_matrix or s.recon_field_of_view_mm:
        raise ValueError(
            "simulation: arrays are made of 2D scans of one repetition, average, set and contrast, with embedded "
            "calibration, full echoes and no recon matrix or field of view of their own"
        )
    columns, rows, _ = s.matrix
    kspace = np.zeros((s.slices, s.coils, rows, columns), np.complex64)
    margin = (s.readout_samples - columns) // 2
    for line in scan.acquisitions():
        if not is_noise(line):
            image = centred_fft(scan.prewhitener @ line.data, (1,), inverse=True)[:, margin : margin + columns]
            kspace[line.idx.slice, :, line.idx.kspace_encode_step_1] = centred_fft(image, (1,))
    lines = (scan.sampling_mask[0] | scan.calibration_mask)[:, 0]
    mask = np.repeat(lines[:, None], columns, axis=1)
    return kspace, mask, scan.truth[0]

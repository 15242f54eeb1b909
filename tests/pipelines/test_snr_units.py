"""SNR maps at the end of whole chains against what repeated scans with known noise differ by."""

from __future__ import annotations

import ismrmrd
import numpy as np
import pytest

from gadgets.images import SCALE_RATIO, meta_of, meta_values
from gadgets.outputs import SNR
from pipelines.replay import read_images, replay
from tests import noise_scans, raw_files

REPETITIONS = 6
BANDWIDTH = 0.6  # of the receiver, relative
DWELL = 5.0  # us, of the scan's lines
MIXING = 6 * noise_scans.MIXING
CENTRE = range(22, 42)
SCANS = {
    "two averages, finer pixels": ("zero_filled", range(64), 2, 20.0, 96),
    "R = 2": ("cg_sense", {*range(0, 64, 2), *CENTRE}, 1, 20.0, 64),
    "R = 2, partial Fourier, one dwell time": ("grappa", {*range(16, 64, 2), *CENTRE}, 1, DWELL, 64),
}


def noise(samples: int, seed: int):
    """Correlated noise of the scan's lines (coil, sample)."""
    return MIXING @ raw_files.noise((4, samples), seed=seed)


def scan(path, steps, averages, noise_dwell, matrix):
    """Repetitions that differ in nothing but noise, and a long noise scan whose bandwidth is another.

    Noise goes with the root of the bandwidth, which the receiver's filter makes narrower where nothing else is sampled.
    """
    less = np.sqrt(DWELL / noise_dwell * BANDWIDTH)
    lines = [
        raw_files.line(less * noise(512, 1000 + number), 0, flags=[noise_scans.NOISE], sample_time_us=noise_dwell)
        for number in range(40)
    ]
    for repetition in range(REPETITIONS):
        for average in range(averages):
            data = noise_scans.DATA + noise(64 * 128, repetition * averages + average).reshape(4, 64, 128)
            own = raw_files.lines(data, sorted(steps), repetition=repetition, average=average, sample_time_us=DWELL)
            own[-1].set_flag(ismrmrd.ACQ_LAST_IN_REPETITION)
            lines += own
    counters = {"repetition": (0, REPETITIONS - 1, 0), "average": (0, averages - 1, 0)}
    head = noise_scans.header(bandwidth=BANDWIDTH, recon=(matrix, matrix, 1), limits=counters)
    return raw_files.write(path, (head, lines))


def values(folder, series):
    """Images (image, y, x) in the units of their values."""
    images = list(read_images(folder, series))
    ratios = [float(meta_values(meta_of(image.attribute_string), SCALE_RATIO)[0]) for image in images]
    return np.stack([np.squeeze(image.data) / ratio for image, ratio in zip(images, ratios, strict=True)])


@pytest.mark.slow
@pytest.mark.parametrize("name", SCANS)
def test_snr_is_image_over_noise(name, tmp_path):
    method, *how = SCANS[name]
    raw = scan(tmp_path / "scan.h5", *how)
    settings = ["generative_recon.output=magnitude,snr", f"generative_recon.method={method}"]
    replay(raw, "cg_sense", tmp_path / "out", settings=settings)
    images, snr = (values(tmp_path / "out", series) for series in (1, 1 + SNR.series))
    assert images.shape == snr.shape == (REPETITIONS, how[-1], how[-1])
    inside = snr.min(0) > 20
    assert inside.mean() > 0.2
    expected = ((images / np.maximum(snr, 1))[:, inside] ** 2).mean(0)
    ratio = np.sqrt((images.var(0, ddof=1)[inside] / expected).mean())
    assert ratio == pytest.approx(1, abs=0.025)  # known to 1.3 %

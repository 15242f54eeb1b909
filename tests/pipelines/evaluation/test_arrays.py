"""Arrays of one slice through the gadgets."""

from __future__ import annotations

import numpy as np
import pytest

from gadgets.twins.fourier import centred_fft
from pipelines.evaluation.arrays import ArrayReconstruction
from tests.raw_files import kspace


@pytest.mark.parametrize("samples", [(64, 64), (48, 64), (64, 48)])
def test_the_image_has_the_size_and_values_of_the_array(samples: tuple[int, int]) -> None:
    data = kspace(samples=samples, extent=(150, 150))
    reconstruction = ArrayReconstruction({"method": "cg_sense"})
    for part in (data, data[:, :40, :32]):  # one object serves arrays of any size
        result = reconstruction(reconstruction.with_maps(part))
        images = centred_fft(part, (1, 2), inverse=True)
        wanted = np.linalg.norm(images, axis=0)
        assert result.image.shape == wanted.shape
        assert np.linalg.norm(abs(result.image) - wanted) < 0.05 * np.linalg.norm(wanted)
        assert not [text for text in result.warnings if "header" in text]


def test_arrays_of_small_values_are_not_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    """Their values stay as they are; the server's warm-up and benchmarks of images up to 1 have such."""
    recon = ArrayReconstruction({"method": "zero_filled"})
    data = kspace(samples=(64, 64), extent=(150, 150))
    result = recon(recon.with_maps(data / np.float32(1e3 * abs(data).max())))
    assert 0 < np.abs(result.image).max() < 1 and not caplog.records

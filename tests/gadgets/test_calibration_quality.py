"""What coil maps explain of the calibration that they were made of."""

from __future__ import annotations

import ismrmrd
import numpy as np
import pytest
import torch
from gadgetron.types.recon_data import ReconBit, ReconBuffer

from gadgets import calibration_quality
from gadgets.calibration_quality import calibration_text, explained_fraction
from gadgets.stream import logs
from priors.signal.espirit import espirit_maps
from priors.signal.fourier import fft2c

COILS, SIZE = 4, 48


def kspace() -> torch.Tensor:
    """K-space (coil, y, x) of a disc seen by coils with a smooth sensitivity."""
    place = torch.linspace(-1, 1, SIZE)
    y, x = place[:, None], place[None, :]
    disc = ((x**2 + y**2) < 0.5).float()
    coils = [
        torch.polar(1.2 + x * torch.cos(a) + y * torch.sin(a), 0.5 * (x * torch.sin(a) + y * torch.cos(a)))
        for a in torch.arange(COILS) * (2 * torch.pi / COILS)
    ]
    return fft2c(disc * torch.stack(coils))


def middle(data: torch.Tensor, count: int) -> torch.Tensor:
    begin = SIZE // 2 - count // 2
    return data[:, begin : begin + count, begin : begin + count]


def test_maps_of_the_scan_explain_its_calibration_and_others_do_not() -> None:
    calibration = middle(kspace(), 24)
    maps = espirit_maps(calibration[None], (SIZE, SIZE), sets=1, kernel=6)[0]
    assert explained_fraction(calibration, maps, 0.0) > 0.97
    assert explained_fraction(calibration, maps.roll(1, 1), 0.0) < 0.9


@pytest.mark.parametrize("shape", [(16, 16), (48, 8), (8, 48)])
def test_reference_lines_may_be_more_than_the_matrix_has(shape: tuple[int, int]) -> None:
    calibration = middle(kspace(), 24)
    maps = espirit_maps(calibration[None], shape, sets=1, kernel=6)[0]
    assert 0.0 <= explained_fraction(calibration, maps, 0.0) <= 1.0


def test_text_warns_below_95_percent() -> None:
    assert calibration_text((24, 24), "measured", 0.99) == "24 x 24 samples, coil maps explain 99.0% of its signal"
    assert calibration_text((24, 24), "completed", 0.5).endswith("explain 50.0% of its signal: expect artefacts")


def test_nothing_is_computed_where_nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[float] = []
    monkeypatch.setattr(calibration_quality, "explained_fraction", lambda *_: looked.append(1.0) or 1.0)
    headers = np.empty((8, 1, 1, 1, 1), object)
    headers.fill(ismrmrd.AcquisitionHeader())
    bit = ReconBit(ReconBuffer(np.ones((8, 8, 1, 2, 1, 1, 1), np.complex64), None, None, headers, None))
    bit.coil_maps = bit.data.data
    calibrations = [[torch.ones(1, 2, 8, 8, dtype=torch.complex64)]]
    quality = calibration_quality.CalibrationQuality()
    quality.add(calibrations, bit, "measured")
    assert not looked
    told: list[tuple[str, str]] = []
    monkeypatch.setattr(logs, "fact_listeners", [lambda *fact: told.append(fact)])
    quality.add(calibrations, bit, "measured")
    assert looked and told[0][0] == "calibration"

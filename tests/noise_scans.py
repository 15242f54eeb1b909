"""Raw files of a scan and of its noise measurement: lines with correlated noise, and headers that name coils."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ismrmrd
import numpy as np

from tests import raw_files

NOISE = ismrmrd.ACQ_IS_NOISE_MEASUREMENT
NAMES = ("H1", "H2", "H3", "H4")
DATA = raw_files.kspace()
_PARTS = np.random.default_rng(1).standard_normal((2, 4, 4))
MIXING = (_PARTS[0] + 1j * _PARTS[1]) * np.array([[1.0], [2.0], [3.0], [4.0]]) * np.abs(DATA).max() * 2e-3


def header(
    names: Sequence[str] = NAMES,
    *,
    depends_on: str = "",
    bandwidth: float = 0.793,
    station: str = "MR1",
    date: str = "2024-03-01",
    **changes: Any,
) -> str:
    """A header of Siemens with coil labels; `depends_on`: ID of a noise measurement, `changes`: as in raw_files."""
    labels = "".join(
        f"<coilLabel><coilNumber>{number}</coilNumber><coilName>{name}</coilName></coilLabel>"
        for number, name in enumerate(names, 20)
    )
    system = (
        "<acquisitionSystemInformation><systemVendor>SIEMENS</systemVendor>"
        f"<relativeReceiverNoiseBandwidth>{bandwidth}</relativeReceiverNoiseBandwidth>{labels}"
        f"<stationName>{station}</stationName></acquisitionSystemInformation>"
    )
    dependency = (
        f"<measurementDependency><dependencyType>Noise</dependencyType><measurementID>{depends_on}</measurementID>"
        "</measurementDependency>"
    )
    text = raw_files.header(in_measurement=dependency if depends_on else "", **changes)
    return text.replace("<experimentalConditions>", system + "<experimentalConditions>").replace("2024-03-01", date)


def noise_lines(count: int = 8, order: Sequence[int] = range(4), **fields: Any) -> list[ismrmrd.Acquisition]:
    """Noise readouts of these of the four coils; `fields` are of their headers."""
    fields = {"acquisition_time_stamp": 14_424_000} | fields  # 10:01
    return [
        raw_files.line((MIXING @ raw_files.noise(seed=seed))[list(order)], 0, flags=[NOISE], **fields)
        for seed in range(count)
    ]


def scan_lines(**fields: Any) -> list[ismrmrd.Acquisition]:
    """The lines of a slice with that noise, five minutes later."""
    noise = (MIXING @ raw_files.noise((4, 64 * 128), seed=99)).reshape(4, 64, 128)
    return raw_files.lines(DATA + noise, **{"acquisition_time_stamp": 14_544_000} | fields)

"""Headers of a simulated scan's acquisitions: counters, time stamps, positions, flags."""

from __future__ import annotations

from typing import Any

import ismrmrd
import numpy as np
from numpy.typing import NDArray

from pipelines.simulation.geometry import directions, slice_position_mm
from pipelines.simulation.scanners import VENDORS
from pipelines.simulation.settings import SimulationSettings

TIME_STAMP_TICK_MS = 2.5  # of Siemens scanners


class AcquisitionHeaders:
    """Scan counter and time stamps of consecutive acquisitions, with the header fields common to all."""

    def __init__(self, settings: SimulationSettings) -> None:
        self._settings = settings
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
        sign = VENDORS[settings.vendor].fourier_sign  # the k-space is that of the other sign: its directions are turned
        head.read_dir[:], head.phase_dir[:], head.slice_dir[:] = (
            [sign * value + 0.0 for value in direction] for direction in (read, phase, normal)
        )
        self._common = bytes(head)

    def next(self, samples: int, pause_ms: float, echo_ms: float = 0.0) -> Any:
        """Header of an acquisition `pause_ms` after the last excitation, `echo_ms` after the first echo."""
        self._count += 1
        self._elapsed_ms += pause_ms
        head = ismrmrd.AcquisitionHeader.from_buffer_copy(self._common)
        head.scan_counter = self._count
        time_ms = self._start_ms + self._elapsed_ms + echo_ms
        head.acquisition_time_stamp = int(time_ms / TIME_STAMP_TICK_MS) % 2**32
        head.number_of_samples = samples
        return head

    def set_counters(self, head: Any, e1: int, e2: int, number: int, repetition: int) -> None:
        """Give an acquisition its counters, centre and position; (e1, e2) on the encoded grid."""
        s = self._settings
        skipped, skipped_e1, skipped_e2 = s.omitted
        head.idx.kspace_encode_step_1 = e1 - skipped_e1
        head.idx.kspace_encode_step_2 = e2 - skipped_e2
        head.idx.slice = number
        head.idx.repetition = repetition
        head.center_sample = s.readout_samples // 2 - skipped
        head.sample_time_us = s.dwell_time_us
        head.position[:] = slice_position_mm(s, number)


def phase_encoding_flags(e2: NDArray[np.intp]) -> list[int]:
    """First and last flags of the E1 loop of each E2 and of the E2 loop, lines sorted by E2, then E1."""
    last = len(e2) - 1
    flags = []
    for line in range(len(e2)):
        flags.append(
            bits(
                (line == 0 or e2[line] != e2[line - 1], ismrmrd.ACQ_FIRST_IN_ENCODE_STEP1),
                (line == last or e2[line] != e2[line + 1], ismrmrd.ACQ_LAST_IN_ENCODE_STEP1),
                (line == 0, ismrmrd.ACQ_FIRST_IN_ENCODE_STEP2),
                (line == last, ismrmrd.ACQ_LAST_IN_ENCODE_STEP2),
            )
        )
    return flags


def bits(*flags: tuple[bool, int]) -> int:
    """Flag word of those ISMRMRD flags (numbered from 1) whose condition holds."""
    return sum(1 << number - 1 for condition, number in flags if condition)

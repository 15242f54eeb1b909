"""What is known of a noise scan, and whether it is one for a given measurement."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import ismrmrd
import numpy as np

from gadgets.dicom.times import acquired
from gadgets.dicom.values import time_of
from gadgets.noise.coils import Coil, coil_order, coils_of
from gadgets.noise.covariance import SAMPLES_A_COIL, Array, without_correlation

OWN = "own scan"
OLDEST = datetime.timedelta(days=1)  # coils and receivers are adjusted anew from one examination to the next

AnyScan = TypeVar("AnyScan", bound="EarlierScan")


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class EarlierScan:
    """What noise and reference scans have in common: measured with coils, and used by later scans.

    Parameters
    ----------
    coils : labels of its coils; empty: not known
    bandwidth : relativeReceiverNoiseBandwidth of its header
    measurement : measurementID
    context : digests of what names scanner, patient and study, by name
    moment : when it was measured, by the scanner's clock; None: not known
    day : when it was measured, where that is all that is known
    origin : where it comes from, without anything that identifies
    name : file, group or measurement
    """

    coils: tuple[Coil, ...] = ()
    bandwidth: float | None = None
    measurement: str = ""
    context: Mapping[str, str] = dataclasses.field(default_factory=dict)
    moment: datetime.datetime | None = None
    day: datetime.date | None = None
    origin: str = "another measurement"
    name: str = ""

    @property
    def channels(self) -> int:
        """Number of its coils."""
        raise NotImplementedError

    @property
    def nbytes(self) -> int:
        """Size of its arrays in bytes."""
        raise NotImplementedError

    def digest(self) -> str:
        """Digest of what changes images."""
        raise NotImplementedError

    def _chosen(self: AnyScan, order: list[int]) -> AnyScan:
        """The scan of some of its coils, by their indices."""
        raise NotImplementedError

    def for_coils(self: AnyScan, coils: tuple[Coil, ...], count: int) -> AnyScan | None:
        """What it is of the coils of a scan, in their order (`coil_order`); None where it has no such coils."""
        order = coil_order(self.coils, self.channels, coils, count)
        return None if order is None else dataclasses.replace(self._chosen(order), coils=coils)


@dataclasses.dataclass(frozen=True, eq=False)
class NoiseScan(EarlierScan):
    """Noise of a measurement's receivers.

    Parameters
    ----------
    covariance : complex128 (coil, coil)
    samples : number of noise samples of each coil; 0: not known
    dwell_us : dwell time of the noise in microseconds; 0: not known
    """

    covariance: Array
    samples: int = 0
    dwell_us: float = 0.0

    @property
    def channels(self) -> int:
        return len(self.covariance)

    @property
    def nbytes(self) -> int:
        return int(self.covariance.nbytes)

    def digest(self) -> str:
        values = np.append(self.covariance.ravel(), self.dwell_us)
        return hashlib.sha256(np.ascontiguousarray(values, np.complex64).tobytes()).hexdigest()[:32]

    @property
    def too_few_samples(self) -> bool:
        """Whether the correlation between coils cannot be known from so few samples."""
        return 0 < self.samples < SAMPLES_A_COIL * len(self.covariance)

    def _chosen(self, order: list[int]) -> NoiseScan:
        return dataclasses.replace(self, covariance=self.covariance[np.ix_(order, order)])

    def as_line(self) -> ismrmrd.Acquisition:
        """A noise readout that has this covariance, for a server that knows noise as readouts only."""
        covariance = without_correlation(self.covariance) if self.too_few_samples else self.covariance
        values, vectors = np.linalg.eigh(covariance)
        root = vectors * np.sqrt(np.clip(values, 0, None))
        count = 1 + SAMPLES_A_COIL * len(root)
        samples = np.zeros((len(root), count), complex)
        samples[:, : len(root)] = root * np.sqrt(count - 1)  # C = N N^H / (n - 1)
        line = ismrmrd.Acquisition.from_array(samples.astype(np.complex64))
        line.sample_time_us = self.dwell_us
        line.set_flag(ismrmrd.ACQ_IS_NOISE_MEASUREMENT)
        return line


@dataclasses.dataclass(frozen=True)
class ChosenNoise:
    """The noise that a scan is prewhitened with.

    Parameters
    ----------
    scan : None: that of the noise lines in its own stream, before its other lines
    text : what images say of it; nothing in it identifies anyone
    name : which file or measurement it is
    """

    scan: NoiseScan | None
    text: str = OWN
    name: str = ""


def moment_of(header: Any, ticks: int) -> datetime.datetime | None:
    """When a line with this acquisition_time_stamp was measured; None where no date or no time of its own is known."""
    day, time = acquired(ticks, header)
    measurement, study = header.measurementInformation, header.studyInformation
    if day is None or time is None:
        return None
    if not (measurement and measurement.seriesTime) and study and time == time_of(study.studyTime):
        return None
    return datetime.datetime.combine(day, time)


def context_of(header: Any) -> dict[str, str]:
    """Digests of what tells scanners, patients and examinations apart, by the name it has in messages.

    Siemens' converter writes measurementID as device_patient_study_measurement, which stands in for what the header
    does not name, as in Gadgetron's storage.
    """
    system, subject, study = (
        header.acquisitionSystemInformation,
        header.subjectInformation,
        header.studyInformation,
    )
    texts = {
        "vendor": system and system.systemVendor,
        "model": system and system.systemModel,
        "device": system and system.deviceID,
        "serial number": system and system.deviceSerialNumber,
        "station": system and system.stationName,
        "institution": system and system.institutionName,
        "patient": subject and subject.patientID,
        "study": study and study.studyInstanceUID,
        "study ID": study and study.studyID,
    }
    parts = measurement_id(header).split("_")
    if len(parts) == 4:
        for name, part in zip(("device", "patient", "study"), parts, strict=False):
            texts[f"{name} in measurementID"] = part
    return {
        name: hashlib.sha256(str(text).strip().encode("utf-8", "replace")).hexdigest()
        for name, text in texts.items()
        if text and str(text).strip()
    }


def measurement_id(header: Any) -> str:
    """The measurementID of a header, "" without one."""
    information = header.measurementInformation
    return str((information.measurementID if information else None) or "").strip()


def noise_dependencies(header: Any) -> list[str]:
    """IDs of the noise measurements that a header names in measurementDependency."""
    return dependencies(header, lambda kind: kind.lower() == "noise")


def dependencies(header: Any, wanted: Callable[[str], bool]) -> list[str]:
    """IDs of measurements of the wanted kinds that a header names in measurementDependency.

    Older converters wrote the last part of the ID alone; the other parts are then those of the scan's own ID.
    """
    information = header.measurementInformation
    found = []
    for dependency in information.measurementDependency if information else []:
        number = str(dependency.measurementID or "").strip()
        if wanted(str(dependency.dependencyType or "").strip()) and number:
            found.append(number)
            begin, underscore, _ = measurement_id(header).rpartition("_")
            if underscore and "_" not in number:
                found.append(f"{begin}_{number}")
    return list(dict.fromkeys(found))


def conflict(earlier: EarlierScan, header: Any) -> str:
    """What says that a scan is not of this scanner, patient or examination; empty where nothing does."""
    own = context_of(header)
    differing = [name for name, value in earlier.context.items() if own.get(name, value) != value]
    system = header.acquisitionSystemInformation
    bandwidth = system.relativeReceiverNoiseBandwidth if system else None
    if earlier.bandwidth and bandwidth and abs(earlier.bandwidth / bandwidth - 1) > 1e-3:
        differing.append("receiver noise bandwidth")
    return ", ".join(differing)


def age_text(age: datetime.timedelta) -> str:
    """An age in words: "12 min older"."""
    seconds = abs(age.total_seconds())
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit} {'older' if age.total_seconds() > 0 else 'newer'}"
    return f"{seconds:.0f} s {'older' if age.total_seconds() >= 0 else 'newer'}"


def age_of(earlier: EarlierScan, header: Any, ticks: int) -> tuple[datetime.timedelta, str] | None:
    """Age of a scan when a line with this acquisition_time_stamp was measured, and the same in words.

    Where a time of day is not known, the dates count, in whole days. None where they are equal or not known either.
    """
    moment, day = moment_of(header, ticks), acquired(ticks, header)[0]
    if moment is not None and earlier.moment is not None:
        return moment - earlier.moment, age_text(moment - earlier.moment)
    own_day = earlier.day or (earlier.moment.date() if earlier.moment else None)
    if day is None or own_day is None or day == own_day:
        return None
    days = (day - own_day).days
    unit = "day" if abs(days) == 1 else "days"
    return day - own_day, f"{abs(days)} {unit} {'older' if days > 0 else 'newer'}"


def noise_of_covariance(header: Any, covariance: Array, samples: int, dwell_us: float, ticks: int) -> NoiseScan:
    """The noise of a measurement with this header."""
    system = header.acquisitionSystemInformation
    bandwidth = system.relativeReceiverNoiseBandwidth if system else None
    return NoiseScan(covariance, samples, dwell_us, bandwidth=bandwidth, **of_measurement(header, ticks))


def of_measurement(header: Any, ticks: int) -> dict[str, Any]:
    """Fields of an `EarlierScan` but its bandwidth, by its header and the acquisition_time_stamp of a line."""
    identifier = measurement_id(header)
    return {
        "coils": coils_of(header),
        "measurement": identifier,
        "context": context_of(header),
        "moment": moment_of(header, ticks),
        "day": acquired(ticks, header)[0],
        "name": identifier and f"measurement {identifier}",
    }

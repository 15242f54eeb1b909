"""When the image was measured."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING

import ismrmrd
from ismrmrd.xsd import ismrmrdHeader, studyInformationType

from gadgets.dicom.parameters import DicomParameters
from gadgets.dicom.values import Warn, date_of, date_text, time_of, time_text

if TYPE_CHECKING:  # the noise gadgets take times from here without pydicom, which is slow to load
    from pydicom.dataset import Dataset

TICK_S = 2.5e-3  # one tick of acquisition_time_stamp and physiology_time_stamp
DAY_S = 86400.0


def acquired(ticks: int, header: ismrmrdHeader) -> tuple[datetime.date | None, datetime.time | None]:
    """Moment of acquisition: its time stamp in ticks since midnight where plausible, else the series' time.

    Siemens stamps are taken as they are; any other vendor's only when they lie between a minute before and
    six hours after the series or study began. A stamp far before the study's time is past midnight: the next
    day.
    """
    study = header.studyInformation or studyInformationType()
    measurement, system = header.measurementInformation, header.acquisitionSystemInformation
    day = date_of(measurement.seriesDate if measurement else None) or date_of(study.studyDate)
    begin = time_of(measurement.seriesTime if measurement else None) or time_of(study.studyTime)
    seconds = ticks * TICK_S
    begin_s = None if begin is None else begin.hour * 3600 + begin.minute * 60 + begin.second
    wraps = begin_s is not None and seconds < begin_s - DAY_S / 2
    plausible = 0 < seconds < DAY_S
    if plausible and "SIEMENS" not in ((system.systemVendor if system else None) or "").upper():
        after = None if begin_s is None else seconds - begin_s + (DAY_S if wraps else 0.0)
        plausible = after is not None and -60 <= after <= 6 * 3600
    if not plausible:
        return day, begin
    if day is not None and wraps:
        day += datetime.timedelta(days=1)
    return day, (datetime.datetime.min + datetime.timedelta(seconds=seconds)).time()


def add_times(
    ds: Dataset, image: ismrmrd.Image, header: ismrmrdHeader, parameters: DicomParameters, warn: Warn
) -> None:
    """Add dates and times of series, acquisition, content and file; empty content times when anonymized."""
    if parameters.anonymize:
        ds.ContentDate = ds.ContentTime = ""
        return
    measurement = header.measurementInformation
    if measurement and (day := date_of(measurement.seriesDate, "seriesDate", warn)):
        ds.SeriesDate = date_text(day)
    if measurement and (begin := time_of(measurement.seriesTime, "seriesTime", warn)):
        ds.SeriesTime = time_text(begin)
    acquired_day, acquired_time = acquired(image.acquisition_time_stamp, header)
    if acquired_day:
        ds.AcquisitionDate = date_text(acquired_day)
    if acquired_time:
        ds.AcquisitionTime = time_text(acquired_time)
    ds.ContentDate, ds.ContentTime = date_text(acquired_day), time_text(acquired_time)
    if parameters.creation_time:
        now = datetime.datetime.now()
        ds.InstanceCreationDate, ds.InstanceCreationTime = date_text(now.date()), time_text(now.time())

"""Raw data: files of measurements, read block by block, and checked."""

from pipelines.raw.checks import AcquisitionChecker, check_header, field_of_view_doubts, trajectory_problem
from pipelines.raw.header import Header, read_header
from pipelines.raw.measurements import Measurement
from pipelines.raw.scan import RawScan, file_and_group, measurements

__all__ = [
    "AcquisitionChecker",
    "Header",
    "Measurement",
    "RawScan",
    "check_header",
    "field_of_view_doubts",
    "file_and_group",
    "measurements",
    "read_header",
    "trajectory_problem",
]

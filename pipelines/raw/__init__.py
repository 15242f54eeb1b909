"""Raw data: files of measurements, read block by block, and checked."""

from pipelines.raw.checks import AcquisitionChecker, check_header, field_of_view_doubts
from pipelines.raw.header import Header, read_header
from pipelines.raw.scan import RawScan

__all__ = ["AcquisitionChecker", "Header", "RawScan", "check_header", "field_of_view_doubts", "read_header"]

"""Raw data: files of measurements, read block by block, and checked."""

from pipelines.raw.checks import AcquisitionChecker, check_header
from pipelines.raw.header import parse_header
from pipelines.raw.scan import RawScan

__all__ = ["AcquisitionChecker", "RawScan", "check_header", "parse_header"]

"""Units of pixel values, as DICOM maps them to real-world values."""

from __future__ import annotations

from pydicom.dataset import Dataset

from gadgets.outputs import Output

UNITS = {"rad": "radians", "1": "no units"}  # UCUM code -> meaning


def add_real_world(ds: Dataset, output: Output, slope: float, intercept: float, largest: int) -> None:
    """Add the Real World Value Mapping Sequence (PS3.3 C.7.6.16.2.11.1): value = slope x stored pixel + intercept.

    Parameters
    ----------
    ds : is changed
    output : what the image shows, in which units
    slope, intercept : to those units
    largest : largest stored pixel value there can be
    """
    units = Dataset()
    units.CodeValue = output.units
    units.CodingSchemeDesignator = "UCUM"
    units.CodeMeaning = UNITS[output.units]
    item = Dataset()
    item.LUTExplanation = output.words or output.name
    item.LUTLabel = output.name[:16].upper()
    item.add_new("RealWorldValueFirstValueMapped", "US", 0)
    item.add_new("RealWorldValueLastValueMapped", "US", largest)
    item.RealWorldValueIntercept, item.RealWorldValueSlope = float(intercept), float(slope)
    item.MeasurementUnitsCodeSequence = [units]
    ds.RealWorldValueMappingSequence = [item]

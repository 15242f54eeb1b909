"""The equipment module."""

from __future__ import annotations

import functools
import importlib.metadata

from ismrmrd.xsd import ismrmrdHeader
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from gadgets.dicom.values import Warn, text_value


@functools.cache
def software_version() -> str:
    """Version of the installed distribution, "unknown" when it runs from a source tree."""
    try:
        return importlib.metadata.version("gadgetron-genrecon")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def add_equipment(ds: Dataset, header: ismrmrdHeader, warn: Warn) -> None:
    """Add the scanner, and this software as contributing equipment (PS3.3 C.7.5.1, C.12.1)."""
    system = header.acquisitionSystemInformation
    ds.Manufacturer = text_value(system.systemVendor if system else None, "LO", warn)
    if system:
        for keyword, vr, value in (
            ("ManufacturerModelName", "LO", system.systemModel),
            ("InstitutionName", "LO", system.institutionName),
            ("StationName", "SH", system.stationName),
            ("DeviceSerialNumber", "LO", system.deviceSerialNumber or system.deviceID),
        ):
            if text := text_value(value, vr, warn):
                setattr(ds, keyword, text)
    purpose = Dataset()
    purpose.CodeValue = "109102"
    purpose.CodingSchemeDesignator = "DCM"
    purpose.CodeMeaning = "Processing Equipment"
    software = Dataset()
    software.Manufacturer = "gadgetron-genrecon"
    software.ManufacturerModelName = "gadgetron-genrecon"
    software.SoftwareVersions = software_version()[:64]
    software.ContributionDescription = "Image reconstruction from k-space (research software)"
    software.PurposeOfReferenceCodeSequence = Sequence([purpose])
    ds.ContributingEquipmentSequence = Sequence([software])

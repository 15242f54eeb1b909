"""Headers and images that tests of DICOM share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ismrmrd
import numpy as np
from ismrmrd.xsd import CreateFromDocument, ismrmrdHeader

from gadgets.dicom.parameters import DicomParameters
from gadgets.dicom_output import write_dicom

SUBJECT = (
    "<subjectInformation><patientName>{name}</patientName><patientWeight_kg>71.5</patientWeight_kg>"
    "<patientHeight_m>1.8</patientHeight_m><patientID>{patient}</patientID>"
    "<patientBirthdate>1980-03-15</patientBirthdate><patientGender>F</patientGender></subjectInformation>"
)
STUDY = (
    "<studyInformation><studyDate>2019-03-14</studyDate><studyTime>22:34:35</studyTime><studyID>7</studyID>"
    "<accessionNumber>4711</accessionNumber><referringPhysicianName>House^Gregory</referringPhysicianName>"
    "<studyDescription>Secret study</studyDescription><studyInstanceUID>1.2.3.4.5</studyInstanceUID>"
    "<bodyPartExamined>Knee</bodyPartExamined></studyInformation>"
)
MEASUREMENT = (
    "<measurementInformation><measurementID>45387_1_2_349</measurementID><seriesDate>2019-03-14</seriesDate>"
    "<seriesTime>22:34:36.5</seriesTime><patientPosition>HFS</patientPosition>"
    "<initialSeriesNumber>3</initialSeriesNumber><protocolName>{protocol}</protocolName>"
    "<frameOfReferenceUID>1.3.12.2.1107.5.2.19.45387.1</frameOfReferenceUID></measurementInformation>"
)
SYSTEM = (
    "<acquisitionSystemInformation><systemVendor>SIEMENS</systemVendor><systemModel>Skyra</systemModel>"
    "<systemFieldStrength_T>2.89362</systemFieldStrength_T>"
    "<coilLabel><coilNumber>1</coilNumber><coilName>Body_18:1:B22</coilName></coilLabel>"
    "<coilLabel><coilNumber>2</coilNumber><coilName>Body_18:1:B21</coilName></coilLabel>"
    "<coilLabel><coilNumber>3</coilNumber><coilName>Spine_32:1:S52</coilName></coilLabel>"
    "<institutionName>Princeton-Plainsboro</institutionName><stationName>MRC1</stationName>"
    "<deviceSerialNumber>45387</deviceSerialNumber></acquisitionSystemInformation>"
)
SEQUENCE = (
    "<sequenceParameters><TR>219.64</TR><TE>1.62</TE><TE>4.9</TE><TI>300</TI>"
    "<flipAngle_deg>50</flipAngle_deg><sequence_type>{kind}</sequence_type></sequenceParameters>"
)


def make_header(
    full: bool = True,
    *,
    name: str = "Mustermann^Eva",
    patient: str = "P-1",
    protocol: str = "t1_knee",
    kind: str = "SSFP",
    limits: dict[str, int] | None = None,
    matrix: tuple[int, int, int] = (12, 10, 1),
) -> ismrmrdHeader:
    """A Siemens-like header, or one with nothing but the encoding and the resonance frequency."""
    before = (
        (SUBJECT.format(name=name, patient=patient) + STUDY + MEASUREMENT.format(protocol=protocol) + SYSTEM)
        if full
        else ""
    )
    size = "".join(f"<{axis}>{n}</{axis}>" for axis, n in zip("xyz", matrix, strict=True))
    space = f"<matrixSize>{size}</matrixSize><fieldOfView_mm><x>24</x><y>30</y><z>5</z></fieldOfView_mm>"
    encoding_limits = "".join(
        f"<{dimension}><minimum>0</minimum><maximum>{(limits or {}).get(dimension, 0)}</maximum>"
        f"<center>0</center></{dimension}>"
        for dimension in ("kspace_encoding_step_1", "slice", "contrast", "phase", "repetition")
    )
    return CreateFromDocument(
        f'<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD">{before}'
        "<experimentalConditions><H1resonanceFrequency_Hz>123182813</H1resonanceFrequency_Hz>"
        f"</experimentalConditions><encoding><encodedSpace>{space}</encodedSpace>"
        f"<reconSpace>{space}</reconSpace><encodingLimits>{encoding_limits}</encodingLimits>"
        "<trajectory>cartesian</trajectory></encoding>"
        f"{SEQUENCE.format(kind=kind) if full else ''}</ismrmrdHeader>".encode()
    )


def make_image(data: Any = None, meta: dict[str, Any] | None = None, **header: Any) -> ismrmrd.Image:
    """An oblique image of (10, 12) pixels, 3 mm rows and 2 mm columns, centred away from the origin."""
    if data is None:
        data = np.arange(120, dtype=np.uint16).reshape(10, 12)
    c, s = np.cos(0.3), np.sin(0.3)
    fields = {
        "image_type": ismrmrd.IMTYPE_MAGNITUDE,
        "image_index": 1,
        "image_series_index": 1,
        "field_of_view": (24.0, 30.0, 5.0),
        "position": (20.0, -66.5, 7.25),
        "read_dir": (c, s, 0.0),
        "phase_dir": (0.0, 0.0, -1.0),
        "slice_dir": (-s, c, 0.0),
        "acquisition_time_stamp": 32510348,
    }
    image = ismrmrd.Image.from_array(np.asarray(data), transpose=False, **{**fields, **header})
    image.meta = ismrmrd.Meta({"GenreconMethod": "svd-wkgm", "GenreconSettings": "steps=25, rank=72", **(meta or {})})
    return image


def quiet(_: str) -> None:
    """Takes warnings that a test does not look at."""


def save(image: ismrmrd.Image, header: ismrmrdHeader, folder: Path, **settings: Any) -> list[Path]:
    return write_dicom(image, header, DicomParameters(folder=str(folder), **settings), quiet)


rng = np.random.default_rng(0)
VOLUME = rng.normal(size=(1, 4, 9, 12)).astype(np.float32) ** 2

"""MR Image Storage files from ISMRMRD images: geometry, identity that survives a replay, safe writing, and the PACS."""

from __future__ import annotations

import contextlib
import datetime
import functools
import hashlib
import importlib.metadata
import io
import logging
import math
import re
import unicodedata
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import ismrmrd
import numpy as np
from ismrmrd.xsd import ismrmrdHeader, measurementInformationType, studyInformationType, subjectInformationType
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.config import IGNORE
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.errors import InvalidDicomError
from pydicom.sequence import Sequence
from pydicom.uid import UID, ExplicitVRLittleEndian, MRImageStorage
from pydicom.valuerep import DSfloat

from gadgets.dicom.pacs import Destination
from gadgets.dicom.spool import add_to_spool, deliver_in_background, queue_folder, replace_file
from gadgets.stream import Gadget, ReconError, parameter

log = logging.getLogger("genrecon")

Warn = Callable[[str], None]

TICK_S = 2.5e-3  # one tick of acquisition_time_stamp and physiology_time_stamp
DAY_S = 86400.0

TEXT_LIMITS = {"CS": 16, "SH": 16, "LO": 64, "PN": 64, "ST": 1024, "LT": 10240}

SCANNING_SEQUENCES = frozenset({"SE", "IR", "GR", "EP", "RM"})
SEQUENCE_VARIANTS = frozenset({"SK", "MTC", "SS", "TRSS", "SP", "MP", "OSP", "TOF", "NONE"})
SCAN_OPTIONS = frozenset({"PER", "RG", "CG", "PPG", "FC", "PFF", "PFP", "SP", "FS"})

# What sequence_type and sequenceName say about ScanningSequence and SequenceVariant; the first match rules.
SEQUENCE_TYPES = (
    (r"EPI", ("EP",), ("NONE",)),
    (r"MP2?RAGE|TURBOFLASH|TFL", ("GR", "IR"), ("SP", "MP")),
    (r"TSE|FSE|TURBO ?SPIN|FAST ?SPIN|RARE|HASTE|SPACE|CUBE|VISTA", ("SE",), ("SK",)),
    (r"SSFP|TRUFI|TRUEFISP|FIESTA|BFFE|B-FFE|FISP", ("GR",), ("SS",)),
    (r"FLASH|SPGR|T1-?FFE|VIBE|LAVA|THRIVE", ("GR",), ("SP",)),
    (r"GRE|GRADIENT|FFE|FGRE", ("GR",), ("NONE",)),
    (r"\bIR\b|INVERSION|STIR|FLAIR", ("SE", "IR"), ("NONE",)),
    (r"\bSE\b|SPIN ?ECHO", ("SE",), ("NONE",)),
)

# fmt: off
PAIRED_BODY_PARTS = frozenset((
    "ANKLE", "ARM", "BREAST", "CALF", "CLAVICLE", "EAR", "ELBOW", "EYE", "FEMUR", "FINGER", "FOOT",
    "FOREARM", "HAND", "HIP", "HUMERUS", "KIDNEY", "KNEE", "LEG", "ORBIT", "OVARY", "PATELLA", "RADIUS",
    "SCAPULA", "SHOULDER", "TESTIS", "THIGH", "THUMB", "TIBIA", "TOE", "ULNA", "WRIST",
))
# fmt: on

# ISMRMRD image type -> (third value of ImageType, ComplexImageComponent, word for the series description)
IMAGE_TYPES = {
    0: ("M", "MAGNITUDE", ""),
    ismrmrd.IMTYPE_MAGNITUDE: ("M", "MAGNITUDE", ""),
    ismrmrd.IMTYPE_PHASE: ("P", "PHASE", "phase"),
    ismrmrd.IMTYPE_REAL: ("R", "REAL", "real"),
    ismrmrd.IMTYPE_IMAG: ("I", "IMAGINARY", "imaginary"),
}

SCALE_RATIO_KEYS = ("GADGETRON_ScaleRatio", "GADGETRON_IMAGE_SCALE_RATIO")
SCALE_OFFSET_KEYS = ("GADGETRON_ScaleOffset", "GADGETRON_IMAGE_SCALE_OFFSET")
WINDOW_CENTER_KEYS = ("GADGETRON_WindowCenter", "WindowCenter")
WINDOW_WIDTH_KEYS = ("GADGETRON_WindowWidth", "WindowWidth")
COMMENT_KEYS = ("GADGETRON_ImageComment", "ImageComments", "ImageComment")
HISTORY_KEYS = ("GADGETRON_ImageProcessingHistory", "ImageProcessingHistory")
METHOD_KEYS = ("GenreconMethod",)
SETTINGS_KEYS = ("GenreconSettings",)
WARNING_KEYS = ("GenreconWarning",)
ECHO_TIME_KEYS = ("GADGETRON_TE",)
INVERSION_TIME_KEYS = ("GADGETRON_TI",)


@dataclass(frozen=True)
class DicomParameters:
    """Properties of `DicomOutput`, and the settings of `dicom_datasets` and `write_dicom`."""

    folder: str = parameter(
        "dicom",
        "folder the series folders are made in; '~' is the home folder, a relative folder is below the "
        "working directory of the process that runs the gadget (on a server: the server's); with a PACS it may be "
        "empty: files are in the spool only",
        local=True,
    )
    anonymize: bool = parameter(
        False,
        "write no patient, study, institution or device identity, no dates and no free text of the header; "
        "UIDs are replaced, by the same ones at every replay",
        local=True,
    )
    salt: str = parameter(
        "",
        "secret text that anonymized UIDs and patient IDs are derived with; with it the scans of one patient "
        "keep one pseudonym, without it only those of one study do",
        local=True,
    )
    series_description: str = parameter("", "SeriesDescription; empty: the header's, followed by the method")
    series_number_offset: int = parameter(
        1000,
        "SeriesNumber = 100 x initialSeriesNumber + image_series_index + this, away from the scanner's own",
        minimum=0,
        maximum=1_000_000,
    )
    creation_time: bool = parameter(
        True, "write InstanceCreationDate and -Time; false: a replay gives the same files byte for byte"
    )
    pacs: str = parameter(
        "",
        "PACS the files are sent to: dicom://AE@host:port (C-STORE), dicom-tls://AE@host:port (C-STORE over TLS) or "
        "the DICOMweb root https://host/path (STOW-RS); empty: none",
        local=True,
    )
    spool: str = parameter(
        "dicom-spool",
        "folder where files wait until the PACS confirmed them; scans and processes may share one",
        local=True,
    )
    calling_ae: str = parameter("GENRECON", "AE title of this side, as the PACS knows it", local=True)
    ca_file: str = parameter(
        "", "PEM file of the certificates the PACS's is checked by, with TLS; empty: those of the system", local=True
    )
    certificate_file: str = parameter("", "PEM file of a client certificate, for a PACS that asks for one", local=True)
    key_file: str = parameter(
        "", "PEM file of the client certificate's key, where it is not in the same file", local=True
    )
    token_file: str = parameter("", "file with a bearer token for STOW-RS", local=True)
    deliver: bool = parameter(
        True, "send to the PACS; false: `genrecon deliver` or `genrecon serve` does that, from the spool", local=True
    )
    pacs_timeout_s: float = parameter(
        60.0, "seconds of silence after which an attempt is given up", minimum=1, maximum=3600, local=True
    )
    pacs_wait_s: float = parameter(
        2.0,
        "longest a scan's end waits for what is still being sent; the spool keeps the rest",
        minimum=0,
        maximum=600,
        local=True,
    )
    keep_delivered: bool = parameter(False, "move delivered files to a folder 'delivered' in the spool", local=True)


# --- text and numbers of a header ---------------------------------------------------------------------------


def _cut(text: str, size: int) -> str:
    """The text in at most `size` bytes of UTF-8: DICOM counts characters, but not all of its readers do."""
    return text.encode()[:size].decode(errors="ignore").rstrip()


def _text(value: Any, vr: str, warn: Warn) -> str:
    """Header text as a DICOM value of one value representation: clean, and cut when too long."""
    if value is None:
        return ""
    text = str(value).encode("utf-8", "replace").decode()
    if vr in ("ST", "LT"):
        text = "".join(c for c in text if c in "\r\n" or unicodedata.category(c) != "Cc").strip()
    else:
        text = "".join(" " if unicodedata.category(c) in ("Cc", "Zl", "Zp") else c for c in text)
        text = " ".join(text.replace("\\", "/").split())
    if vr == "CS":
        text = re.sub(r"[^A-Z0-9 _]", "_", text.upper())
    if vr == "PN":
        groups = ["^".join(group.split("^")[:5]) for group in text.split("=")[:3]]
        shortened = "=".join(_cut(group, TEXT_LIMITS[vr]) for group in groups)
    else:
        shortened = _cut(text, TEXT_LIMITS[vr])
    if len(shortened) < len(text):
        warn(f"a text of the header is too long for DICOM's {vr} ({TEXT_LIMITS[vr]} bytes); it is cut")
    return shortened


def _number(value: Any) -> float | None:
    """The value as a finite float, or None."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _positive(value: Any) -> float | None:
    number = _number(value)
    return number if number is not None and number > 0 else None


def _ds(value: float) -> DSfloat:
    """A float as a decimal string: ten digits, which is at most 16 characters, and no negative zero."""
    return DSfloat(f"{float(value) + 0.0:.10g}")


def _meta(image: ismrmrd.Image, keys: tuple[str, ...]) -> list[str]:
    """Values of the first of `keys` that the image's meta attributes hold; empty without."""
    for key in keys:
        value = image.meta.get(key)
        values = value if isinstance(value, list) else [value]
        texts = [str(text).strip() for text in values if text is not None and str(text).strip()]
        if texts:
            return texts
    return []


def _meta_number(image: ismrmrd.Image, keys: tuple[str, ...]) -> float | None:
    values = _meta(image, keys)
    return _number(values[0]) if values else None


def _of_contrast(values: list[float], contrast: int) -> float | None:
    """The entry of a sequence parameter list that belongs to a contrast; a list of one holds for all."""
    if contrast < len(values):
        return _positive(values[contrast])
    return _positive(values[0]) if len(values) == 1 else None


def _date(value: Any) -> datetime.date | None:
    try:
        return datetime.date(value.year, value.month, value.day)
    except (AttributeError, TypeError, ValueError):
        return None


def _time(value: Any) -> datetime.time | None:
    try:
        return datetime.time(value.hour, value.minute, value.second, value.fractional_second // 1000)
    except (AttributeError, TypeError, ValueError):
        return None


def _da(value: datetime.date | None) -> str:
    return "" if value is None else value.strftime("%Y%m%d").zfill(8)


def _tm(value: datetime.time | None) -> str:
    if value is None:
        return ""
    return value.strftime("%H%M%S.%f" if value.microsecond else "%H%M%S")


@functools.cache
def software_version() -> str:
    """Version of the installed distribution, "unknown" when it runs from a source tree."""
    try:
        return importlib.metadata.version("gadgetron-genrecon")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


# --- identity -----------------------------------------------------------------------------------------------


def stable_uid(*parts: str) -> UID:
    """UID below 2.25 (ITU-T X.667: a UUID as a number) that depends on nothing but `parts`."""
    return UID(f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, chr(31).join(('gadgetron-genrecon', *parts))).int}")


@dataclass(frozen=True)
class _Identity:
    """Who and what an image belongs to.

    `scan` is a digest of the whole header, the entropy of all derived UIDs. `patient_id` stands in for one
    that is missing or hidden: archives merge all patients that have an empty one.
    """

    salt: str
    scan: str
    study: UID
    frame_of_reference: UID
    patient_id: str


def _study_key(header: ismrmrdHeader, scan: str) -> str:
    """What the scans of one examination have in common when the header names no study UID.

    Siemens' converter writes measurementID as device_patient_study_measurement; without that or a study ID of
    a known patient each scan is a study of its own: two studies of one examination are better than one of two
    patients.
    """
    study, subject, measurement = (
        header.studyInformation,
        header.subjectInformation,
        header.measurementInformation,
    )
    if study and study.studyID and subject and subject.patientID:
        return f"study {subject.patientID}|{study.studyID}|{study.studyDate}|{study.accessionNumber}"
    match = re.fullmatch(r"(\d+_\d+_\d+)_\d+", (measurement and measurement.measurementID) or "")
    return f"measurement {match[1]}" if match else f"scan {scan}"


def _identity(header: ismrmrdHeader, parameters: DicomParameters, warn: Warn) -> _Identity:
    study, subject, measurement = (
        header.studyInformation,
        header.subjectInformation,
        header.measurementInformation,
    )
    salt = f"anonymized {parameters.salt}" if parameters.anonymize else ""
    # A real Gadgetron hands its gadgets the header's numbers rounded to single precision: same scan, same UIDs.
    text = re.sub(r"(?<=>)-?\d+\.\d+(?=<)", lambda number: f"{float(number[0]):.6g}", header.toXML("utf-8"))
    scan = hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()

    def given(name: str, value: str | None) -> str:
        value = (value or "").strip()
        if value and not UID(value, validation_mode=IGNORE).is_valid:
            warn(f"the header's {name} is not a valid UID; one is derived")
            return ""
        return value

    study_uid = given("studyInstanceUID", study.studyInstanceUID if study else None)
    frame_uid = given("frameOfReferenceUID", measurement.frameOfReferenceUID if measurement else None)
    key = study_uid or _study_key(header, scan)
    if parameters.anonymize or not study_uid:
        study_uid = stable_uid("study", salt, key)
    if parameters.anonymize or not frame_uid:
        frame_uid = stable_uid("frame of reference", salt, frame_uid or scan)
    patient = (subject.patientID if subject and parameters.anonymize and parameters.salt else None) or key
    digest = hashlib.sha256(f"patient {salt} {patient}".encode("utf-8", "replace")).hexdigest()[:12].upper()
    patient_id = f"{'ANON' if parameters.anonymize else 'UNKNOWN'}-{digest}"
    return _Identity(salt, scan, UID(study_uid), UID(frame_uid), patient_id)


def _without_identity(header: ismrmrdHeader, patient_id: str) -> ismrmrdHeader:
    """A copy of the header with only what says nothing about who, where and when."""
    study, measurement, system = (
        header.studyInformation,
        header.measurementInformation,
        header.acquisitionSystemInformation,
    )
    return replace(
        header,
        subjectInformation=subjectInformationType(patientName="ANONYMOUS^PATIENT", patientID=patient_id),
        studyInformation=studyInformationType(bodyPartExamined=study.bodyPartExamined if study else None),
        measurementInformation=measurement
        and measurementInformationType(
            patientPosition=measurement.patientPosition,
            initialSeriesNumber=measurement.initialSeriesNumber,
        ),
        acquisitionSystemInformation=system
        and replace(
            system, institutionName=None, stationName=None, deviceID=None, deviceSerialNumber=None, coilLabel=[]
        ),
    )


# --- geometry -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ImageGeometry:
    """Where the pixels of an image are, in DICOM patient coordinates (LPS), mm.

    Pixel (x, y, z) has its centre at

        centre + (x - nx//2) dx row + (y - ny//2) dy column + (z - nz//2) dz step

    because index n//2 is the centre of a centred FFT of any size and ISMRMRD's `position` is the centre of
    the encoded volume; for even n this is Gadgetron's `position - fov/2 * direction` for the first pixel.
    """

    centre: NDArray[np.float64]
    row: NDArray[np.float64]
    column: NDArray[np.float64]
    step: NDArray[np.float64]
    spacing: tuple[float, float, float]
    matrix: tuple[int, int, int]
    assumed: bool

    def pixel(self, x: float, y: float, z: float) -> NDArray[np.float64]:
        """Position of a pixel centre in mm."""
        axes = (self.row, self.column, self.step)
        offsets = [
            (index - n // 2) * spacing * axis
            for index, n, spacing, axis in zip((x, y, z), self.matrix, self.spacing, axes, strict=True)
        ]
        return np.asarray(self.centre + np.sum(offsets, axis=0), dtype=np.float64)


def image_geometry(image: ismrmrd.Image, header: ismrmrdHeader, warn: Warn = log.warning) -> ImageGeometry:
    """Geometry of an ISMRMRD image: x increases along read_dir, y along phase_dir, z along slice_dir.

    Directions that are missing (a phantom's zeros) or not finite become the identity axes, with a warning and
    `assumed` set; directions not quite perpendicular are made so. A field of view of 0 is taken from the
    header.

    Raises
    ------
    ReconError
        If neither the image nor the header has a field of view.
    """
    nz, ny, nx = image.data.shape[1:]
    recon = header.encoding[0].reconSpace.fieldOfView_mm if header.encoding else None
    declared = (recon.x, recon.y, recon.z) if recon else (0.0, 0.0, 0.0)
    fov = []
    for axis, own, fallback in zip("xyz", image.field_of_view, declared, strict=True):
        size = _positive(own) or _positive(fallback)
        if size is None:
            raise ReconError(
                f"DicomOutput: neither the image nor the ISMRMRD header has a field of view along {axis}; "
                "set encoding/reconSpace/fieldOfView_mm in the header"
            )
        fov.append(size)

    row, column, step, centre = (
        np.array(values[:], dtype=np.float64)
        for values in (image.read_dir, image.phase_dir, image.slice_dir, image.position)
    )
    norms = [float(np.linalg.norm(axis)) for axis in (row, column)]
    assumed = not all(math.isfinite(norm) and norm > 0.5 for norm in norms)
    if not assumed:
        row, column = row / norms[0], column / norms[1]
        skew = float(row @ column)
        assumed = abs(skew) > 0.9
    if assumed:
        warn("the image has no usable read and phase directions; its orientation is assumed to be axial")
        row, column, step = np.eye(3)
    else:
        if abs(skew) > 1e-3:
            warn(f"read_dir and phase_dir are not perpendicular (cosine {skew:.3g}); phase_dir is turned")
        column = column - skew * row
        column /= np.linalg.norm(column)
    normal = np.cross(row, column)
    along = float(step @ normal)
    if not math.isfinite(along):
        along = 0.0
    if np.any(step) and abs(along) < 0.99:
        warn("slice_dir is not perpendicular to the image plane; the plane's normal is used")
    step = normal if along >= 0 else -normal
    if not np.all(np.isfinite(centre)):
        warn("the image has no usable position; it is put at the origin")
        centre, assumed = np.zeros(3), True

    def tidy(axis: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(np.where(np.abs(axis) < 1e-6, 0.0, axis) + 0.0, dtype=np.float64)

    return ImageGeometry(
        centre=centre,
        row=tidy(row),
        column=tidy(column),
        step=tidy(step),
        spacing=(fov[0] / nx, fov[1] / ny, fov[2] / nz),
        matrix=(nx, ny, nz),
        assumed=assumed,
    )


# --- pixels -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Pixels:
    """uint16 pixels (cha, z, y, x); value = slope * pixel + intercept, slope None for unscaled ones."""

    stored: NDArray[np.uint16]
    slope: float | None
    intercept: float
    window_center: float
    window_width: float


def _name(image: ismrmrd.Image) -> str:
    counters = f"slice {image.slice}, contrast {image.contrast}, repetition {image.repetition}"
    return f"image {image.image_index} ({counters})"


def _pixels(image: ismrmrd.Image, warn: Warn) -> _Pixels:
    data = image.data
    if np.iscomplexobj(data) or image.image_type not in IMAGE_TYPES:
        raise ReconError(
            f"DicomOutput: {_name(image)} is complex or colour, which MR Image Storage cannot hold; "
            "put a gadget that takes its magnitude or phase before DicomOutput"
        )
    if data.size == 0:
        raise ReconError(f"DicomOutput: {_name(image)} has no pixels; check the gadget before DicomOutput")
    low, high = float(data.min()), float(data.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ReconError(
            f"DicomOutput: {_name(image)} holds NaN or infinite values and is not written; "
            "check the raw data for damaged readouts and the settings of the reconstruction"
        )
    slope, intercept = 1.0, 0.0
    scaled = True
    if np.issubdtype(data.dtype, np.integer) and low >= 0 and high <= 65535:
        stored = data.astype(np.uint16)
        scaled = False
    else:
        bottom, top = min(low, 0.0), high
        if image.image_type == ismrmrd.IMTYPE_PHASE and max(-low, high) <= math.pi * (1 + 1e-5):
            bottom, top = -math.pi, math.pi  # the same scale for every image of the series
        elif np.issubdtype(data.dtype, np.integer) and high - bottom <= 65535:
            top = bottom + 65535
        slope = (top - bottom) / 65535 or 1.0
        intercept = bottom
        stored = np.clip(np.rint((data.astype(np.float64) - bottom) / slope), 0, 65535).astype(np.uint16)

    center, width = _meta_number(image, WINDOW_CENTER_KEYS), _meta_number(image, WINDOW_WIDTH_KEYS)
    if center is None or width is None or width <= 0:
        if image.image_type == ismrmrd.IMTYPE_PHASE:
            dark, bright = (intercept, intercept + 65535 * slope) if slope != 1.0 else (low, high)
        else:
            dark, bright = (float(edge) for edge in np.percentile(data, (1.0, 99.5)))
        center = (dark + bright) / 2
        width = max(bright - dark, slope)

    ratio, offset = _meta_number(image, SCALE_RATIO_KEYS), _meta_number(image, SCALE_OFFSET_KEYS) or 0.0
    if ratio is not None and ratio <= 0:
        warn(f"the image scale {ratio:g} in the image's meta attributes is not positive; it is left out")
        ratio = None
    if ratio is None and not scaled:
        return _Pixels(stored, None, 0.0, center, width)
    ratio, offset = (1.0, 0.0) if ratio is None else (ratio, offset)
    intercept, center = (intercept - offset) / ratio, (center - offset) / ratio
    return _Pixels(stored, slope / ratio, intercept, center, width / ratio)


# --- the modules of the MR image ----------------------------------------------------------------------------


def _patient_and_study(ds: Dataset, header: ismrmrdHeader, identity: _Identity, warn: Warn) -> None:
    subject = header.subjectInformation or subjectInformationType()
    study = header.studyInformation or studyInformationType()
    birth, day = _date(subject.patientBirthdate), _date(study.studyDate)
    ds.PatientName = _text(subject.patientName, "PN", warn)
    ds.PatientID = _text(subject.patientID, "LO", warn) or identity.patient_id
    ds.PatientBirthDate = _da(birth)
    ds.PatientSex = subject.patientGender if subject.patientGender in ("M", "F", "O") else ""
    if birth and day and birth <= day:
        years = day.year - birth.year - ((day.month, day.day) < (birth.month, birth.day))
        months = (day.year - birth.year) * 12 + day.month - birth.month - (day.day < birth.day)
        days = (day - birth).days
        ds.PatientAge = f"{years:03d}Y" if years >= 2 else f"{months:03d}M" if months else f"{days:03d}D"
    if height := _positive(subject.patientHeight_m):
        ds.PatientSize = _ds(height)
    if weight := _positive(subject.patientWeight_kg):
        ds.PatientWeight = _ds(weight)
    ds.StudyInstanceUID = identity.study
    ds.StudyDate = _da(day)
    ds.StudyTime = _tm(_time(study.studyTime))
    ds.StudyID = _text(study.studyID, "SH", warn)
    ds.AccessionNumber = _text(study.accessionNumber, "SH", warn)
    ds.ReferringPhysicianName = _text(study.referringPhysicianName, "PN", warn)
    if study.studyDescription:
        ds.StudyDescription = _text(study.studyDescription, "LO", warn)
    ds.FrameOfReferenceUID = identity.frame_of_reference
    ds.PositionReferenceIndicator = ""


def _deidentification(ds: Dataset) -> None:
    ds.PatientIdentityRemoved = "YES"
    ds.DeidentificationMethod = [
        "gadgetron-genrecon: identity, dates and header texts removed",
        "UIDs and patient ID replaced; pixels unchanged",
    ]
    ds.LongitudinalTemporalInformationModified = "REMOVED"


def _equipment(ds: Dataset, header: ismrmrdHeader, warn: Warn) -> None:
    system = header.acquisitionSystemInformation
    ds.Manufacturer = _text(system.systemVendor if system else None, "LO", warn)
    if system:
        for keyword, vr, value in (
            ("ManufacturerModelName", "LO", system.systemModel),
            ("InstitutionName", "LO", system.institutionName),
            ("StationName", "SH", system.stationName),
            ("DeviceSerialNumber", "LO", system.deviceSerialNumber or system.deviceID),
        ):
            if text := _text(value, vr, warn):
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


def _user_codes(header: ismrmrdHeader, name: str, allowed: frozenset[str]) -> list[str]:
    """Valid codes of a user parameter string; the names are those Gadgetron's own DICOM gadget reads."""
    strings = header.userParameters.userParameterString if header.userParameters else []
    values = [entry.value or "" for entry in strings if entry.name == name]
    codes = [code.strip().upper() for value in values for code in value.split("\\")]
    return [code for code in codes if code in allowed]


def _receive_coil(header: ismrmrdHeader) -> str:
    """Names of the coils, each once; elements of one array differ only after the first colon."""
    labels = header.acquisitionSystemInformation.coilLabel if header.acquisitionSystemInformation else []
    names = (str(label.coilName).split(":")[0].strip() for label in labels)
    return ";".join(dict.fromkeys(filter(None, names)))


def _sequence(ds: Dataset, image: ismrmrd.Image, header: ismrmrdHeader, warn: Warn) -> None:
    timing = header.sequenceParameters
    measurement = header.measurementInformation
    encoding = header.encoding[0] if header.encoding else None
    system = header.acquisitionSystemInformation

    names = ((timing.sequence_type if timing else None), (measurement.sequenceName if measurement else None))
    kind = " ".join(filter(None, names)).upper()
    matches = (codes for pattern, *codes in SEQUENCE_TYPES if re.search(pattern, kind))
    scanning, variant = (list(codes) for codes in next(matches, (("RM",), ("NONE",))))
    scanning = _user_codes(header, "scanningSequence", SCANNING_SEQUENCES) or scanning
    if _meta(image, INVERSION_TIME_KEYS) and "IR" not in scanning:
        scanning = [*scanning, "IR"]
    ds.ScanningSequence = scanning
    ds.SequenceVariant = _user_codes(header, "sequenceVariant", SEQUENCE_VARIANTS) or variant
    ds.ScanOptions = _user_codes(header, "scanOptions", SCAN_OPTIONS) or ""
    volume = image.data.shape[1] > 1 or (encoding is not None and encoding.encodedSpace.matrixSize.z > 1)
    dimension = _user_codes(header, "mrAcquisitionType", frozenset({"2D", "3D"}))
    ds.MRAcquisitionType = dimension[0] if dimension else "3D" if volume else "2D"

    def timed(keyword: str, keys: tuple[str, ...], values: list[float], required: bool) -> None:
        value = _positive(_meta_number(image, keys)) or _of_contrast(values, image.contrast)
        if value is not None:
            setattr(ds, keyword, _ds(value))
        elif required:
            setattr(ds, keyword, None)

    timed("RepetitionTime", (), timing.TR if timing else [], True)
    timed("EchoTime", ECHO_TIME_KEYS, timing.TE if timing else [], True)
    if "IR" in ds.ScanningSequence:  # Siemens headers hold a default TI where nothing is inverted
        timed("InversionTime", INVERSION_TIME_KEYS, timing.TI if timing else [], True)
    timed("FlipAngle", (), timing.flipAngle_deg if timing else [], False)
    ds.EchoTrainLength = (encoding.echoTrainLength if encoding else None) or None
    ds.EchoNumbers = image.contrast + 1
    if frequency := _positive(header.experimentalConditions.H1resonanceFrequency_Hz):
        ds.ImagingFrequency = _ds(frequency / 1e6)
    ds.ImagedNucleus = "1H"
    if system and (field := _positive(system.systemFieldStrength_T)):
        ds.MagneticFieldStrength = _ds(field)
    if coil := _receive_coil(header):
        ds.ReceiveCoilName = _text(_cut(coil, TEXT_LIMITS["SH"]), "SH", warn)
    if measurement:
        for keyword, vr, value in (
            ("ProtocolName", "LO", measurement.protocolName),
            ("SequenceName", "SH", measurement.sequenceName),
        ):
            if text := _text(value, vr, warn):
                setattr(ds, keyword, text)
    ds.InPlanePhaseEncodingDirection = "COL"
    ds.KSpaceFiltering = "NONE"
    if encoding is None:
        return
    encoded, recon = encoding.encodedSpace, encoding.reconSpace
    if encoded.fieldOfView_mm.x > 0 and recon.fieldOfView_mm.x > 0 and recon.fieldOfView_mm.y > 0:
        samples = round(encoded.matrixSize.x * recon.fieldOfView_mm.x / encoded.fieldOfView_mm.x)
        lines = encoded.matrixSize.y
        if 0 < samples <= 65535 and 0 < lines <= 65535:
            ds.AcquisitionMatrix = [0, samples, lines, 0]  # frequency rows, columns; phase rows, columns
        ds.PercentPhaseFieldOfView = _ds(100 * recon.fieldOfView_mm.y / recon.fieldOfView_mm.x)
    if encoding.parallelImaging and (factor := encoding.parallelImaging.accelerationFactor):
        in_plane = _positive(factor.kspace_encoding_step_1) or 1.0
        out_of_plane = _positive(factor.kspace_encoding_step_2) or 1.0
        ds.ParallelAcquisition = "YES" if in_plane * out_of_plane > 1 else "NO"
        if in_plane * out_of_plane > 1:
            ds.ParallelReductionFactorInPlane = in_plane
            ds.ParallelReductionFactorOutOfPlane = out_of_plane


def _acquired(image: ismrmrd.Image, header: ismrmrdHeader) -> tuple[datetime.date | None, datetime.time | None]:
    """Moment of acquisition: the time stamp in ticks since midnight where plausible, else the series' time.

    Siemens stamps are taken as they are; any other vendor's only when they lie between a minute before and
    six hours after the series or study began. A stamp far before the study's time is past midnight: the next
    day.
    """
    study = header.studyInformation or studyInformationType()
    measurement, system = header.measurementInformation, header.acquisitionSystemInformation
    day = _date(measurement.seriesDate if measurement else None) or _date(study.studyDate)
    begin = _time(measurement.seriesTime if measurement else None) or _time(study.studyTime)
    seconds = image.acquisition_time_stamp * TICK_S
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


def _times(ds: Dataset, image: ismrmrd.Image, header: ismrmrdHeader, parameters: DicomParameters) -> None:
    if parameters.anonymize:
        ds.ContentDate = ds.ContentTime = ""
        return
    measurement = header.measurementInformation
    if measurement and (day := _date(measurement.seriesDate)):
        ds.SeriesDate = _da(day)
    if measurement and (begin := _time(measurement.seriesTime)):
        ds.SeriesTime = _tm(begin)
    acquired_day, acquired_time = _acquired(image, header)
    if acquired_day:
        ds.AcquisitionDate = _da(acquired_day)
    if acquired_time:
        ds.AcquisitionTime = _tm(acquired_time)
    ds.ContentDate, ds.ContentTime = _da(acquired_day), _tm(acquired_time)
    if parameters.creation_time:
        now = datetime.datetime.now()
        ds.InstanceCreationDate, ds.InstanceCreationTime = _da(now.date()), _tm(now.time())


def _count(header: ismrmrdHeader, name: str) -> int:
    """Number of values an encoding counter takes, 1 when the header is silent."""
    limit = getattr(header.encoding[0].encodingLimits, name, None) if header.encoding else None
    return max(int(limit.maximum) + 1, 1) if limit is not None else 1


def _instance_number(image: ismrmrd.Image, header: ismrmrdHeader, channel: int, partition: int) -> int:
    """Number of an image in its series, from its counters, so that a replay in any order numbers alike."""
    number = image.repetition  # outermost: a free-running scan may pass its limit
    for name in ("average", "set", "phase", "contrast", "slice"):
        number = number * _count(header, name) + getattr(image, name)
    channels, partitions = image.data.shape[:2]
    number = (number * channels + channel) * partitions + partition + 1
    return int(min(number, 2**31 - 1))


def _series(
    ds: Dataset,
    image: ismrmrd.Image,
    header: ismrmrdHeader,
    identity: _Identity,
    parameters: DicomParameters,
    warn: Warn,
) -> None:
    measurement, study = header.measurementInformation, header.studyInformation
    value, component, word = IMAGE_TYPES[image.image_type]
    method = ", ".join(_meta(image, METHOD_KEYS))
    settings = ", ".join(_meta(image, SETTINGS_KEYS))
    history = [] if parameters.anonymize else _meta(image, HISTORY_KEYS)
    parts = ["Reconstructed from k-space"]
    parts += [f"method: {method}"] if method else []
    parts += [f"settings: {settings}"] if settings else []
    parts += ["history: " + ", ".join(history)] if history else []
    derivation = "; ".join(parts)

    ds.Modality = "MR"
    ds.ImageType = ["DERIVED", "PRIMARY", value]
    ds.ComplexImageComponent = component
    ds.DerivationDescription = _text(derivation, "ST", warn)
    initial = (measurement.initialSeriesNumber if measurement else None) or 0
    number = 100 * initial + image.image_series_index + parameters.series_number_offset
    ds.SeriesNumber = max(0, min(number, 2**31 - 1))
    if parameters.series_description:
        ds.SeriesDescription = _text(parameters.series_description, "LO", warn)
    else:
        given = measurement.seriesDescription or measurement.protocolName if measurement else None
        base = _text(given, "LO", warn) or "MR"
        suffix = _cut(_text(" ".join(filter(None, (method, word))), "LO", warn), 40)
        ds.SeriesDescription = f"{_cut(base, 63 - len(suffix.encode()))} {suffix}".strip()
    ds.SeriesInstanceUID = stable_uid(
        "series",
        identity.salt,
        identity.scan,
        str(ds.SeriesNumber),
        component,
        parameters.series_description,
        method,
        settings,
        derivation,
    )
    position = measurement.patientPosition if measurement else None
    ds.PatientPosition = getattr(position, "value", position) or ""
    body_part = _text(study.bodyPartExamined if study else None, "CS", warn)
    if body_part:
        ds.BodyPartExamined = body_part
    if not body_part or body_part in PAIRED_BODY_PARTS:
        ds.Laterality = ""  # an ISMRMRD header does not say which side


def _comments(image: ismrmrd.Image, parameters: DicomParameters, geometry: ImageGeometry, warn: Warn) -> str:
    warnings = _meta(image, WARNING_KEYS)
    if geometry.assumed:
        warnings = [*warnings, "the raw data has no orientation: patient position and sides are not known"]
    lines = [f"WARNING: {text}" for text in warnings]
    lines += [] if parameters.anonymize else _meta(image, COMMENT_KEYS)
    return _text("\r\n".join(lines), "LT", warn)


def dicom_datasets(
    image: ismrmrd.Image,
    header: ismrmrdHeader,
    parameters: DicomParameters | None = None,
    warn: Warn = log.warning,
) -> list[FileDataset]:
    """MR Image Storage datasets of one ISMRMRD image: one a partition and channel, partitions innermost.

    Patient, study, series and frame of reference come from the header; UIDs it does not give are derived from
    it, so that a replay of a scan gives the same UIDs, another method or prior another series, and other pixels
    another SOP Instance UID. Pixels are uint16: integers from 0 to 65535 as they are, everything else scaled,
    with RescaleSlope and RescaleIntercept back to the image's values. When the meta attributes hold an image scale
    r and offset o (pixel = value r + o) the rescaled values are the true ones, value = (pixel - o) / r; the window
    is in rescaled values (DICOM PS3.3 C.11.2) and LINEAR_EXACT when narrower than 1, which LINEAR does not allow.

    Parameters
    ----------
    image : ismrmrd.Image
        Data (cha, z, y, x), any real type; magnitude, phase (radians), real or imaginary part.
    header : ismrmrd.xsd.ismrmrdHeader
        ISMRMRD header of the scan.
    parameters : DicomParameters, optional
        Settings; `folder` is not used.
    warn : callable, optional
        Takes one line for each thing the file cannot say as the header does.

    Returns
    -------
    list of pydicom.dataset.FileDataset
        Explicit VR little endian, ready for `save_as`.

    Raises
    ------
    ReconError
        If the image is complex or colour, has NaN or infinite values, or no field of view is known.
    """
    parameters = parameters or DicomParameters()
    pixels = _pixels(image, warn)
    geometry = image_geometry(image, header, warn)
    identity = _identity(header, parameters, warn)
    if parameters.anonymize:
        header = _without_identity(header, identity.patient_id)

    common = Dataset()
    common.SpecificCharacterSet = "ISO_IR 192"
    common.SOPClassUID = MRImageStorage
    _patient_and_study(common, header, identity, warn)
    _equipment(common, header, warn)
    _series(common, image, header, identity, parameters, warn)
    _sequence(common, image, header, warn)
    _times(common, image, header, parameters)
    common.ContentQualification = "RESEARCH"
    common.BurnedInAnnotation = "NO"
    common.LossyImageCompression = "00"
    if comments := _comments(image, parameters, geometry, warn):
        common.ImageComments = comments
    if parameters.anonymize:
        _deidentification(common)

    common.AcquisitionNumber = image.repetition + 1
    if (repetitions := _count(header, "repetition")) > 1 or image.repetition > 0:
        common.TemporalPositionIdentifier = image.repetition + 1
        common.NumberOfTemporalPositions = max(repetitions, image.repetition + 1)
    trigger_ms = image.physiology_time_stamp[0] * TICK_S * 1e3
    gated = {"CG", "PPG"} & set(_user_codes(header, "scanOptions", SCAN_OPTIONS))  # TriggerTime is for these alone
    if gated and _count(header, "phase") > 1 and 0 <= trigger_ms < 10_000:
        common.TriggerTime = _ds(trigger_ms)

    dx, dy, dz = geometry.spacing
    channels, partitions, rows, columns = image.data.shape
    common.ImageOrientationPatient = [_ds(cosine) for cosine in (*geometry.row, *geometry.column)]
    common.PixelSpacing = [_ds(dy), _ds(dx)]
    common.SliceThickness = _ds(dz)
    if partitions > 1:
        common.SpacingBetweenSlices = _ds(dz)
    common.SamplesPerPixel = 1
    common.PhotometricInterpretation = "MONOCHROME2"
    common.Rows, common.Columns = rows, columns
    common.BitsAllocated = common.BitsStored = 16
    common.HighBit = 15
    common.PixelRepresentation = 0
    common.WindowCenter, common.WindowWidth = _ds(pixels.window_center), _ds(pixels.window_width)
    if pixels.window_width < 1:
        common.VOILUTFunction = "LINEAR_EXACT"
    if pixels.slope is not None:
        common.RescaleIntercept, common.RescaleSlope = _ds(pixels.intercept), _ds(pixels.slope)
        common.RescaleType = "US"

    datasets = []
    for channel in range(channels):
        for partition in range(partitions):
            meta = FileMetaDataset()
            ds = FileDataset("", {}, preamble=b"\0" * 128, file_meta=meta)
            ds.update(common)
            first = geometry.pixel(0, 0, partition)
            frame = pixels.stored[channel, partition]
            stored = frame.astype("<u2").tobytes()
            ds.ImagePositionPatient = [_ds(round(float(mm), 6)) for mm in first]
            ds.SliceLocation = _ds(round(float(first @ geometry.step), 6))
            ds.InstanceNumber = _instance_number(image, header, channel, partition)
            ds.SOPInstanceUID = stable_uid(
                "image",
                ds.SeriesInstanceUID,
                *(
                    str(getattr(image, name))
                    for name in (
                        "measurement_uid",
                        "acquisition_time_stamp",
                        "average",
                        "slice",
                        "contrast",
                        "phase",
                        "repetition",
                        "set",
                        "image_index",
                    )
                ),
                str(channel),
                str(partition),
                hashlib.sha256(stored).hexdigest(),  # another image is another instance, whatever setting made it so
            )
            ds.add_new("SmallestImagePixelValue", "US", int(frame.min()))
            ds.add_new("LargestImagePixelValue", "US", int(frame.max()))
            ds.add_new("PixelData", "OW", stored)
            meta.MediaStorageSOPClassUID = ds.SOPClassUID
            meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
            meta.TransferSyntaxUID = ExplicitVRLittleEndian
            meta.ImplementationClassUID = stable_uid("implementation")
            meta.ImplementationVersionName = f"GENRECON {software_version()}"[:16].strip()
            datasets.append(ds)
    return datasets


# --- files --------------------------------------------------------------------------------------------------


def _safe_name(text: str) -> str:
    """Text as part of a file name on any system: ASCII letters, digits, '-' and '_' only."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9-]+", "_", plain).strip("_-")[:48] or "series"


def _holds_other_image(path: Path, uid: str) -> bool:
    if not path.exists():
        return False
    with contextlib.suppress(InvalidDicomError, OSError, AttributeError, ValueError):
        return bool(dcmread(path, specific_tags=["SOPInstanceUID"]).SOPInstanceUID != uid)
    return False


def _file_path(folder: Path, ds: Dataset) -> Path:
    series = hashlib.sha256(ds.SeriesInstanceUID.encode()).hexdigest()[:8]
    directory = folder / f"{int(ds.SeriesNumber):04d}_{_safe_name(ds.SeriesDescription)}_{series}"
    path = directory / f"IM_{int(ds.InstanceNumber):05d}.dcm"
    if _holds_other_image(path, ds.SOPInstanceUID):  # counters beyond their limits: one number, two images
        image = hashlib.sha256(ds.SOPInstanceUID.encode()).hexdigest()[:8]
        path = path.with_name(f"{path.stem}_{image}.dcm")
    return path


def _encoded(ds: FileDataset) -> bytes:
    buffer = io.BytesIO()
    ds.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _write_folder(datasets: list[FileDataset], contents: list[bytes], parameters: DicomParameters) -> list[Path]:
    if not parameters.folder.strip():
        raise ReconError("DicomOutput: property 'folder' is empty; name the folder for the DICOM files")
    paths = []
    try:
        folder = Path(parameters.folder.strip()).expanduser()
        for ds, content in zip(datasets, contents, strict=True):
            path = _file_path(folder, ds)
            replace_file(path, content)
            paths.append(path)
    except (OSError, RuntimeError) as error:  # RuntimeError: expanduser finds no home
        raise ReconError(
            f"DicomOutput: cannot write to folder '{parameters.folder}' ({_reason(error)}); "
            "free disk space there or set the property 'folder' to a folder that can be written to"
        ) from None
    return paths


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def write_dicom(
    image: ismrmrd.Image,
    header: ismrmrdHeader,
    parameters: DicomParameters | None = None,
    warn: Warn = log.warning,
) -> list[Path]:
    """Write an ISMRMRD image as DICOM Part 10 files, `folder/SERIES_description_hash/IM_00001.dcm`.

    The hash is of the SeriesInstanceUID: scans never share a series folder, a replay writes the same files
    again. Each file appears whole under its name or not at all. See `dicom_datasets` for the content and the
    arguments.

    Returns
    -------
    list of pathlib.Path
        The files, one a partition and channel.

    Raises
    ------
    ReconError
        If the image cannot be DICOM (see `dicom_datasets`) or the folder cannot be written to.
    """
    parameters = parameters or DicomParameters()
    datasets = dicom_datasets(image, header, parameters, warn)
    return _write_folder(datasets, [_encoded(ds) for ds in datasets], parameters)


class DicomOutput(Gadget):
    """Writes every image of the stream as DICOM (MR Image Storage) and passes it on unchanged.

    With a PACS, files go to the spool first and from there to the PACS, in a thread of its own: the scan does not wait
    for it, and what it does not take now stays in the spool (see `gadgets.dicom.spool`). Images pass on even where the
    disk is full.
    """

    Parameters: ClassVar[type] = DicomParameters

    def configure(self, header: Any, properties: Mapping[str, str]) -> None:
        """Take header and properties; what an earlier scan left in the spool is delivered from now on."""
        super().configure(header, properties)
        self._spool, self._destination = spool_and_destination(self.parameters)
        if self._destination:
            folder = queue_folder(self._spool, self._destination)
            if folder.is_dir() and self.parameters.deliver:
                deliver_in_background(folder)

    def process(self, items: Iterator[Any]) -> Iterator[Any]:
        """Write `ismrmrd.Image` items, yield all items. Raises ReconError as `write_dicom`, after the last one."""
        seen: set[str] = set()

        def warn_once(text: str) -> None:
            if text not in seen:
                seen.add(text)
                log.warning("%s: %s", self.name, text)

        count = 0
        spooled: list[Path] = []
        lost: list[ReconError] = []  # why files are not where they are meant to be
        for item in items:
            if isinstance(item, ismrmrd.Image):
                datasets = dicom_datasets(item, self.header, self.parameters, warn_once)
                contents = [_encoded(ds) for ds in datasets]
                if self._destination:
                    spooled += self._spool_files(contents, self._destination, lost)
                try:
                    if self.parameters.folder.strip() or not self._destination:
                        count += len(_write_folder(datasets, contents, self.parameters))
                except ReconError as error:
                    if self._destination:
                        warn_once(str(error).removeprefix(f"{self.name}: "))
                    else:
                        lost.append(error)
            yield item
        if self._destination and spooled and self.parameters.deliver:
            sender = deliver_in_background(queue_folder(self._spool, self._destination))
            if left := sender.wait(spooled, self.parameters.pacs_wait_s):
                warn_once(
                    f"{left} of {len(spooled)} files wait in the spool for {self._destination.pacs}; the next scan or "
                    f"genrecon deliver --spool {self._spool} sends them"
                )
        if count or not self._destination:
            log.info("%s: %d files in %s", self.name, count, self.parameters.folder)
        if self._destination:
            log.info("%s: %d files in the spool %s", self.name, len(spooled), self._spool)
        if lost:
            raise lost[0]  # now that nobody behind it lacks an image

    def _spool_files(self, contents: list[bytes], destination: Destination, lost: list[ReconError]) -> list[Path]:
        """Put files into the spool and have them sent; those that could be written there."""
        paths = []
        for content in contents:
            try:
                paths.append(add_to_spool(self._spool, destination, content))
            except OSError as error:
                lost.append(
                    ReconError(
                        f"{self.name}: cannot write to the spool '{self._spool}' ({_reason(error)}): images do not "
                        "reach the PACS; give it a folder that can be written to and has room, and reconstruct again"
                    )
                )
        if paths and self.parameters.deliver:
            deliver_in_background(paths[0].parent)
        return paths


def spool_and_destination(parameters: DicomParameters) -> tuple[Path, Destination | None]:
    """Absolute path of the spool and where its files go, None without a PACS. Raises ReconError for a bad property."""
    if not parameters.pacs.strip():
        return Path(), None
    try:
        files = {
            name: str(Path(value).expanduser().absolute()) if (value := getattr(parameters, name).strip()) else ""
            for name in ("spool", "ca_file", "certificate_file", "key_file", "token_file")
        }
    except RuntimeError as error:
        raise ReconError(f"gadget DicomOutput: {error}; give absolute paths instead of '~'") from None
    spool = files.pop("spool")
    if not spool:
        raise ReconError("gadget DicomOutput: property 'spool' is empty; name the folder where files wait for the PACS")
    destination = Destination(
        pacs=parameters.pacs.strip(),
        calling_ae=parameters.calling_ae.strip(),
        timeout_s=parameters.pacs_timeout_s,
        keep_delivered=parameters.keep_delivered,
        **files,
    )
    destination.tls_context()
    destination.token()
    return Path(spool), destination

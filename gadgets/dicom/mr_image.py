"""How the image was measured: the attributes of the MR image module about sequence, timing, coil and matrix."""

from __future__ import annotations

import re

import ismrmrd
from ismrmrd.xsd import ismrmrdHeader
from pydicom.dataset import Dataset

from gadgets.dicom.attributes import (
    ECHO_TIME_KEYS,
    ENCODED_MATRIX_KEYS,
    INVERSION_TIME_KEYS,
    METHOD_KEYS,
    attribute,
    attribute_number,
)
from gadgets.dicom.values import TEXT_LIMITS, Warn, cut, decimal, of_contrast, positive, text_value
from gadgets.images import PARTIAL_FOURIER_DIRECTION, encoding_of_image

SCANNING_SEQUENCES = frozenset({"SE", "IR", "GR", "EP", "RM"})
SEQUENCE_VARIANTS = frozenset({"SK", "MTC", "SS", "TRSS", "SP", "MP", "OSP", "TOF", "NONE"})
PARTIAL = {"PHASE": "PFP", "SLICE_SELECT": "PFP", "FREQUENCY": "PFF"}  # PS3.3 C.8.3.1.1.3
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


def user_codes(header: ismrmrdHeader, name: str, allowed: frozenset[str]) -> list[str]:
    """Valid codes of a user parameter string; the names are those Gadgetron's own DICOM gadget reads."""
    strings = header.userParameters.userParameterString if header.userParameters else []
    values = [entry.value or "" for entry in strings if entry.name == name]
    codes = [code.strip().upper() for value in values for code in value.split("\\")]
    return [code for code in codes if code in allowed]


def _receive_coil(header: ismrmrdHeader) -> str:
    """Names of the coils, each once; elements of one array differ only after the first colon."""
    labels = header.acquisitionSystemInformation.coilLabel if header.acquisitionSystemInformation else []
    names = (str(label.coilName or "").split(":")[0].strip() for label in labels)
    return ";".join(dict.fromkeys(filter(None, names)))


def add_mr_image(ds: Dataset, image: ismrmrd.Image, header: ismrmrdHeader, warn: Warn) -> None:
    """Add sequence, timing, coil, matrix and acceleration (PS3.3 C.8.3.1), as far as the header gives them."""
    timing = header.sequenceParameters
    measurement = header.measurementInformation
    encoding = encoding_of_image(image, header)
    system = header.acquisitionSystemInformation

    names = ((timing.sequence_type if timing else None), (measurement.sequenceName if measurement else None))
    kind = " ".join(filter(None, names)).upper()
    matches = (codes for pattern, *codes in SEQUENCE_TYPES if re.search(pattern, kind))
    scanning, variant = (list(codes) for codes in next(matches, (("RM",), ("NONE",))))
    scanning = user_codes(header, "scanningSequence", SCANNING_SEQUENCES) or scanning
    if attribute(image, INVERSION_TIME_KEYS) and "IR" not in scanning:
        scanning = [*scanning, "IR"]
    ds.ScanningSequence = scanning
    ds.SequenceVariant = user_codes(header, "sequenceVariant", SEQUENCE_VARIANTS) or variant
    options = user_codes(header, "scanOptions", SCAN_OPTIONS)
    missing = [name for name in attribute(image, (PARTIAL_FOURIER_DIRECTION,)) if name in PARTIAL]
    ds.ScanOptions = list(dict.fromkeys([*options, *(PARTIAL[name] for name in missing)])) or ""
    if missing or attribute(image, METHOD_KEYS):  # of other images it is not known
        ds.PartialFourier = "YES" if missing else "NO"
    if missing:
        ds.PartialFourierDirection = missing[0] if len(missing) == 1 else "COMBINATION"
    partitions = attribute(image, ENCODED_MATRIX_KEYS)[2:] or [
        str(encoding.encodedSpace.matrixSize.z) if encoding else "1"
    ]
    volume = image.data.shape[1] > 1 or partitions != ["1"]
    dimension = user_codes(header, "mrAcquisitionType", frozenset({"2D", "3D"}))
    ds.MRAcquisitionType = dimension[0] if dimension else "3D" if volume else "2D"

    def timed(keyword: str, keys: tuple[str, ...], values: list[float], required: bool) -> None:
        value = positive(attribute_number(image, keys)) or of_contrast(values, image.contrast)
        if value is not None:
            setattr(ds, keyword, decimal(value))
        elif required:
            setattr(ds, keyword, None)

    timed("RepetitionTime", (), timing.TR if timing else [], True)
    timed("EchoTime", ECHO_TIME_KEYS, timing.TE if timing else [], True)
    if "IR" in ds.ScanningSequence:  # Siemens headers hold a default TI where nothing is inverted
        timed("InversionTime", INVERSION_TIME_KEYS, timing.TI if timing else [], True)
    timed("FlipAngle", (), timing.flipAngle_deg if timing else [], False)
    length = positive(encoding.echoTrainLength if encoding else None)
    ds.EchoTrainLength = int(length) if length and 1 <= length < 2**31 else None
    ds.EchoNumbers = image.contrast + 1
    conditions = header.experimentalConditions
    if conditions and (frequency := positive(conditions.H1resonanceFrequency_Hz)):
        ds.ImagingFrequency = decimal(frequency / 1e6)
    ds.ImagedNucleus = "1H"
    if system and (field := positive(system.systemFieldStrength_T)):
        ds.MagneticFieldStrength = decimal(field)
    if coil := _receive_coil(header):
        ds.ReceiveCoilName = text_value(cut(coil, TEXT_LIMITS["SH"]), "SH", warn)
    if measurement:
        for keyword, vr, value in (
            ("ProtocolName", "LO", measurement.protocolName),
            ("SequenceName", "SH", measurement.sequenceName),
        ):
            if text := text_value(value, vr, warn):
                setattr(ds, keyword, text)
    ds.InPlanePhaseEncodingDirection = "COL"
    ds.KSpaceFiltering = "NONE"
    if encoding is None:
        return
    encoded, recon = encoding.encodedSpace, encoding.reconSpace
    if positive(encoded.fieldOfView_mm.x) and positive(recon.fieldOfView_mm.x) and positive(recon.fieldOfView_mm.y):
        samples = round(encoded.matrixSize.x * recon.fieldOfView_mm.x / encoded.fieldOfView_mm.x)
        lines = encoded.matrixSize.y
        if 0 < samples <= 65535 and 0 < lines <= 65535:
            ds.AcquisitionMatrix = [0, samples, lines, 0]  # frequency rows, columns; phase rows, columns
        ds.PercentPhaseFieldOfView = decimal(100 * recon.fieldOfView_mm.y / recon.fieldOfView_mm.x)
    if encoding.parallelImaging and (factor := encoding.parallelImaging.accelerationFactor):
        in_plane = positive(factor.kspace_encoding_step_1) or 1.0
        out_of_plane = positive(factor.kspace_encoding_step_2) or 1.0
        ds.ParallelAcquisition = "YES" if in_plane * out_of_plane > 1 else "NO"
        if in_plane * out_of_plane > 1:
            ds.ParallelReductionFactorInPlane = in_plane
            ds.ParallelReductionFactorOutOfPlane = out_of_plane

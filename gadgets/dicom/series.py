"""The series module: which images are a series, and their numbers in it."""

from __future__ import annotations

import re

import ismrmrd
from ismrmrd.xsd import ismrmrdHeader
from pydicom.dataset import Dataset

from gadgets.dicom.attributes import (
    CHAIN_KEYS,
    HISTORY_KEYS,
    METHOD_KEYS,
    NOISE_KEYS,
    NOISE_NAME_KEYS,
    REFERENCE_KEYS,
    REFERENCE_NAME_KEYS,
    SETTINGS_KEYS,
    SHADING_KEYS,
    attribute,
)
from gadgets.dicom.identity import Identity, stable_uid
from gadgets.dicom.parameters import DicomParameters
from gadgets.dicom.terms import BODY_PART_TERMS, PAIRED_BODY_PARTS, POSITION_TERMS, defined_term
from gadgets.dicom.values import Warn, cut, text_value
from gadgets.image_values import output_of
from gadgets.outputs import OUTPUTS

# SeriesNumbers of one scan: image_series_index is 1 + the encoding space + the series of the output (gadgets.outputs),
# below this with room for `image_series`.
SERIES_OF_A_SCAN = 1000

# Forms of meta attributes of this package; nothing else of them goes into an anonymized file.
METHOD_FORM = re.compile(
    rf"[a-z0-9_-]{{1,24}}( ({'|'.join(output.words for output in OUTPUTS.values() if output.words)}))?"
)
SHADING_FORM = re.compile(r"[a-z]{1,16}, gain [0-9.]{1,8} to [0-9.]{1,8}")  # of GenreconShading, of any file
OTHER_SCAN_FORM = re.compile(  # of GenreconNoise and GenreconReference: what it is, and its age
    r"(own (scan|calibration lines)|another (file|measurement( of the file|, from the storage server)?))"
    r"(, \d{1,9} (s|min|h|days?) (older|newer))?"
)
SETTING_FORM = re.compile(r"(?<!\S)[a-z_]+=[\w.:+-]+(?=[\s,]|$)")


def series_number(image: ismrmrd.Image, header: ismrmrdHeader, offset: int, warn: Warn) -> int:
    """SeriesNumber = SERIES_OF_A_SCAN x initialSeriesNumber + image_series_index + offset, unique in a study.

    Warns of an image_series_index that takes a number of the next scan.
    """
    measurement = header.measurementInformation
    initial = (measurement.initialSeriesNumber if measurement else None) or 0
    if image.image_series_index >= SERIES_OF_A_SCAN:
        warn(
            f"image_series_index {image.image_series_index} is above {SERIES_OF_A_SCAN - 1}: another scan of the study "
            "may have the same SeriesNumber"
        )
    number = SERIES_OF_A_SCAN * initial + image.image_series_index + offset
    return max(0, min(number, 2**31 - 1))


def _other_scans(image: ismrmrd.Image, parameters: DicomParameters) -> list[str]:
    """Which noise the data were prewhitened with, and whose calibration lines the coil maps are of."""
    found = []
    for what, keys, name_keys in (
        ("noise", NOISE_KEYS, NOISE_NAME_KEYS),
        ("calibration", REFERENCE_KEYS, REFERENCE_NAME_KEYS),
    ):
        texts, names = attribute(image, keys), attribute(image, name_keys)
        if parameters.anonymize:
            texts, names = [text for text in texts if OTHER_SCAN_FORM.fullmatch(text)], []
        found += [f"{what}: {', '.join([text, *names])}" for text in texts]
    return found


def _shading(texts: list[str]) -> list[str]:
    """That intensities are not those that were measured."""
    return [f"surface-coil shading corrected: {text}" for text in texts]


def add_series(
    ds: Dataset,
    image: ismrmrd.Image,
    header: ismrmrdHeader,
    identity: Identity,
    parameters: DicomParameters,
    warn: Warn,
) -> None:
    """Add the series to a dataset; its UID depends on scan, SeriesNumber, kind of image, method and whole chain."""
    measurement, study = header.measurementInformation, header.studyInformation
    output = output_of(image)
    method = ", ".join(attribute(image, METHOD_KEYS))
    settings = ", ".join(attribute(image, SETTINGS_KEYS))
    history = attribute(image, HISTORY_KEYS)
    if parameters.anonymize:
        method = method if METHOD_FORM.fullmatch(method) else ""
        settings = " ".join(SETTING_FORM.findall(settings))
        history = []
    parts = ["Reconstructed from k-space"]
    parts += [f"method: {method}"] if method else []
    parts += [f"settings: {settings}"] if settings else []
    parts += ["history: " + ", ".join(history)] if history else []
    derivation = "; ".join(parts)

    ds.Modality = "MR"
    shading = [text for text in attribute(image, SHADING_KEYS) if SHADING_FORM.fullmatch(text)]
    ds.ImageType = ["DERIVED", "PRIMARY", *output.terms, *(["NORM"] if shading else [])]
    ds.ComplexImageComponent = output.component
    ds.DerivationDescription = text_value(
        "; ".join([derivation, *_other_scans(image, parameters), *_shading(shading)]), "ST", warn
    )
    ds.SeriesNumber = series_number(image, header, parameters.series_number_offset, warn)
    if parameters.series_description:
        ds.SeriesDescription = text_value(parameters.series_description, "LO", warn)
    else:
        given = measurement.seriesDescription or measurement.protocolName if measurement else None
        base = text_value(given, "LO", warn) or "MR"
        words = "" if method.endswith(output.words) else output.words  # those of other reconstructions lack it
        suffix = cut(text_value(" ".join(filter(None, (method, words))), "LO", warn), 40)
        ds.SeriesDescription = f"{cut(base, 63 - len(suffix.encode()))} {suffix}".strip()
    ds.SeriesInstanceUID = stable_uid(
        "series",
        identity.salt,
        identity.scan,
        str(ds.SeriesNumber),
        output.component,
        parameters.series_description,
        derivation,
        parameters.chain_digest or ", ".join(attribute(image, CHAIN_KEYS)),
    )
    position = measurement.patientPosition if measurement else None
    ds.PatientPosition = defined_term(position, POSITION_TERMS, "patientPosition", warn)
    examined = study.bodyPartExamined if study else None
    body_part = defined_term(examined, BODY_PART_TERMS, "bodyPartExamined", warn)
    if body_part:
        ds.BodyPartExamined = body_part
    if not body_part or body_part in PAIRED_BODY_PARTS:
        ds.Laterality = ""  # an ISMRMRD header does not say which side

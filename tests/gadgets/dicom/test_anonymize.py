"""An anonymized file holds nothing of the header or the images that may be of a person."""

from __future__ import annotations

import gzip
import logging
from pathlib import Path

import pydicom
import pytest
from ismrmrd.xsd import ToXML

from gadgets.dicom import attributes
from gadgets.dicom.parameters import DicomParameters
from gadgets.dicom_output import DicomOutput, dicom_datasets
from gadgets.images import NOISE, NOISE_NAME, REFERENCE, REFERENCE_NAME
from tests import raw_files
from tests.gadgets.dicom.dicom_images import make_header, make_image, quiet
from tests.gadgets.dicom.filled_headers import MARKS, NUMBER, TEXT, UID, filled

META = {
    key: [f"{TEXT} meta", f"{TEXT}={TEXT}"]
    for name, keys in vars(attributes).items()
    if name.endswith("_KEYS") and name != "WARNING_KEYS"  # texts of this package's own
    for key in keys
} | {"GADGETRON_SeriesDescription": TEXT, "PatientName": TEXT, TEXT: "1"}


def marks_in(content: bytes) -> list[str]:
    texts = [mark.encode(codec) for mark in (*MARKS, UID) for codec in ("ascii", "utf-16-le", "utf-16-be")]
    return [text.decode("latin-1") for text in texts if text in content]


def test_every_field_is_marked() -> None:
    """The test of the test: the file that is not anonymized holds the marks, and so does every section."""
    header = filled(make_header())
    text = ToXML(header)
    for section in ("subject", "study", "measurement", "acquisitionSystem", "waveform"):
        assert TEXT in text.split(f"<{section}Information>")[1].split(f"</{section}Information>")[0], section
    for section in ("sequenceParameters", "userParameters"):
        assert TEXT in text.split(f"<{section}>")[1].split(f"</{section}>")[0], section
    assert text.count(TEXT) >= 40 and text.count(str(NUMBER)) >= 20


@pytest.mark.parametrize(("salt", "frames"), [("", "single"), ("secret", "single"), ("", "enhanced")])
def test_no_byte_of_a_file_its_name_or_a_message(
    salt: str, frames: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    header = filled(make_header())
    header.acquisitionSystemInformation.systemFieldStrength_T = 3.0  # it stays
    image = make_image(meta=META, user_int=(NUMBER,) * 8, user_float=(NUMBER,) * 8, measurement_uid=NUMBER)
    for folder, anonymize in (("open", "false"), ("anonymized", "true")):
        gadget = DicomOutput()
        properties = {"folder": str(tmp_path / folder), "anonymize": anonymize, "salt": salt, "frames": frames}
        gadget.configure(header, properties)
        list(gadget.process(iter([image])))
    (open_file,) = (tmp_path / "open").rglob("*.dcm")
    assert {TEXT, UID, "19371023"} <= set(marks_in(open_file.read_bytes()))
    (path,) = (tmp_path / "anonymized").rglob("*.dcm")
    assert marks_in(path.read_bytes()) == []
    assert marks_in(str(path.relative_to(tmp_path)).encode() + caplog.text.encode()) == []
    ds = pydicom.dcmread(path)
    unknown = ("", None) if frames == "single" else ("UNKNOWN", "UNKNOWN")  # Enhanced MR requires both
    assert (ds.Manufacturer, ds.get("ManufacturerModelName")) == unknown and "ReceiveCoilName" not in ds
    assert ds.SeriesDescription == "MR" and ds.RepetitionTime == pytest.approx(219.64)


@pytest.mark.parametrize(
    ("text", "stays"),
    [
        ("own scan", True),
        ("own calibration lines", True),
        ("another file, 5 min older", True),
        ("another measurement of the file", True),
        ("another measurement, from the storage server, 1 day newer", True),
        ("another file, 5 min older, scan of a person", False),
    ],
)
def test_which_noise_and_calibration_stays(text: str, stays: bool) -> None:
    image = make_image(meta={NOISE: text, REFERENCE: text, NOISE_NAME: "a name", REFERENCE_NAME: "a name"})
    (ds,) = dicom_datasets(image, make_header(), DicomParameters(anonymize=True), quiet)
    assert ds.DerivationDescription.endswith(f"; noise: {text}; calibration: {text}") == stays
    assert ("noise" in ds.DerivationDescription) == stays and "a name" not in ds.DerivationDescription


def test_the_maker_of_the_scanner_is_told() -> None:
    names = ("SIEMENS", "Siemens Healthineers", "GE MEDICAL SYSTEMS", "Philips Medical", f"{TEXT} GE")
    found = []
    for name in names:
        header = make_header()
        header.acquisitionSystemInformation.systemVendor = name
        (ds,) = dicom_datasets(make_image(), header, DicomParameters(anonymize=True), quiet)
        found.append(ds.Manufacturer)
    assert found == ["SIEMENS", "SIEMENS", "GE MEDICAL SYSTEMS", "Philips", ""]


def test_a_replay_leaves_none_beside_the_files_either(tmp_path: Path) -> None:
    """PNGs, NIfTI, images.h5 and replay.json, whose name of the raw file is left out too."""
    data = raw_files.noise((4, 64, 128))
    text = raw_files.header(
        protocol=TEXT,
        patient_position=TEXT,
        measurement_id=TEXT,
        in_measurement=f"<sequenceName>{TEXT}</sequenceName><seriesDescription>{TEXT}</seriesDescription>",
        after=f"<sequenceParameters><TR>5</TR><sequence_type>{TEXT}</sequence_type></sequenceParameters>",
    ).replace("TEST^CASE", TEXT)
    raw = raw_files.write(tmp_path / f"{TEXT}.h5", (text, raw_files.lines(data)))
    settings = ("dicom_output.anonymize=true", "generative_recon.iterations=1")
    result, datasets = raw_files.replay(raw, tmp_path / "out", *settings, nifti=True)
    assert len(datasets) == 1
    paths = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert len(paths) >= 6
    for path in paths:
        content = path.read_bytes()
        content = gzip.decompress(content) if path.suffix == ".gz" else content
        assert marks_in(content + str(path.relative_to(tmp_path)).encode()) == [], path.name
    assert TEXT not in "".join(result.warnings)

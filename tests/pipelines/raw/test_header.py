"""Headers of older and newer writers."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import ismrmrd
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gadgets.stream import ReconError
from pipelines.raw import RawScan, check_header, field_of_view_doubts, read_header
from tests.raw_files import MARKER, encoding, header, kspace, lines, marker, replay, write

PLAIN = header()
NOTHING_OF_PYTHON = re.compile(r"Error\b|Exception|xsdata|<class|None|\btype\b|dataclass|__|Traceback")


def without(text: str, name: str) -> str:
    """A header less all elements of a name."""
    changed = re.sub(f"<{name}>.*?</{name}>", "", text)
    assert changed != text
    return changed


def read(text: str | bytes) -> Any:
    found = read_header("scan.h5", text if isinstance(text, bytes) else text.encode())
    check_header("scan.h5", found.fields)
    assert not any(NOTHING_OF_PYTHON.search(note) for note in found.warnings)
    again = ismrmrd.xsd.CreateFromDocument(found.text)  # as a gadget behind a socket reads it
    assert again == found.fields
    return found


def refused(text: str | bytes) -> str:
    with pytest.raises(ReconError) as caught:
        read(text)
    message = str(caught.value)
    assert message.startswith("scan.h5: ") and "\n" not in message and not NOTHING_OF_PYTHON.search(message)
    return message


def test_a_complete_header_stays_as_it_came() -> None:
    found = read(PLAIN)
    assert found.text == PLAIN.encode() and not found.warnings and not field_of_view_doubts(found.fields)
    assert found.fields == ismrmrd.xsd.CreateFromDocument(PLAIN.encode())


@pytest.mark.parametrize(
    ("name", "value", "note"),
    [
        ("trajectory", lambda f: f.encoding[0].trajectory.value == "cartesian", "cartesian is assumed"),
        ("patientPosition", lambda f: f.measurementInformation.patientPosition.value == "HFS", "HFS is assumed"),
        ("encodingLimits", lambda f: f.encoding[0].encodingLimits.kspace_encoding_step_1 is None, "is missing"),
        ("experimentalConditions", lambda f: f.experimentalConditions.H1resonanceFrequency_Hz == 0, "it stays open"),
        ("center", lambda f: f.encoding[0].encodingLimits.kspace_encoding_step_1.center == 32, "32 is assumed"),
        ("maximum", lambda f: f.encoding[0].encodingLimits.kspace_encoding_step_1 is None, "limits are not used"),
    ],
)
def test_what_is_missing_gets_its_default(name: str, value: Any, note: str) -> None:
    found = read(without(PLAIN, name))
    assert value(found.fields)
    assert len(found.warnings) == 1 and name in found.warnings[0] and note in found.warnings[0]


def test_the_frequency_follows_from_the_field_strength() -> None:
    text = without(PLAIN, "experimentalConditions").replace(
        "<encoding>",
        "<acquisitionSystemInformation><systemFieldStrength_T>3</systemFieldStrength_T></acquisitionSystemInformation>"
        "<encoding>",
        1,
    )
    assert read(text).fields.experimentalConditions.H1resonanceFrequency_Hz == pytest.approx(127.732e6, rel=1e-4)


@pytest.mark.parametrize(
    "text",
    [
        without(PLAIN, "reconSpace").replace("<x>128</x>", "<x>64</x>").replace("<x>300</x>", "<x>150</x>"),
        PLAIN.replace("<x>150</x><y>150</y><z>5</z>", "<x>0</x><y>0</y><z>0</z>"),
        PLAIN.replace("<x>300</x><y>150</y><z>5</z>", "<x>0</x><y>0</y><z>0</z>"),
        PLAIN.replace("<x>64</x><y>64</y><z>1</z>", ""),
        PLAIN.replace("<z>1</z>", "").replace("<z>5</z>", "<z>0</z>", 1),
        PLAIN.replace("<z>1</z>", "<z>0</z>"),
        PLAIN.replace("<x>128</x>", ""),
    ],
)
def test_sizes_follow_from_the_other_ones(text: str) -> None:
    found = read(text)
    recon = found.fields.encoding[0].reconSpace
    assert (recon.matrixSize.x, recon.matrixSize.y, recon.matrixSize.z) == (64, 64, 1)
    assert (recon.fieldOfView_mm.x, recon.fieldOfView_mm.y, recon.fieldOfView_mm.z) == (150, 150, 5)
    encoded = found.fields.encoding[0].encodedSpace
    assert encoded.fieldOfView_mm.x / encoded.matrixSize.x == pytest.approx(150 / 64)
    assert len(found.warnings) == 1 and "the other values of the encoding give it" in found.warnings[0]


def test_a_field_of_view_that_nothing_gives() -> None:
    found = read(without(PLAIN, "fieldOfView_mm"))
    encoding = found.fields.encoding[0]
    assert (encoding.encodedSpace.fieldOfView_mm.x, encoding.reconSpace.fieldOfView_mm.x) == (128, 64)
    assert "distances in the images are not true" in found.warnings[0]


@pytest.mark.parametrize("extent", [(0.15, 0.15, 0.005), (150e3, 150e3, 5e3)])
def test_a_field_of_view_in_another_unit(extent: Any, tmp_path: Path) -> None:
    text = header(recon_extent=extent, encoded_extent=(2 * extent[0], *extent[1:]))
    path = write(tmp_path / "scan.h5", (text, lines(kspace())))
    with RawScan(path) as scan:
        assert any("seems to be in another unit" in note for note in scan.warnings)
        recon = scan.header.encoding[0].reconSpace.fieldOfView_mm
        assert recon.x == extent[0]  # not scaled


@pytest.mark.parametrize(
    "text",
    [
        PLAIN.replace("<encoding>", "<futureThing><x>1</x></futureThing><encoding><other/>", 1),
        PLAIN.replace("<", "<ns0:").replace("<ns0:/", "</ns0:").replace("<ns0:?", "<?").replace("xmlns=", "xmlns:ns0="),
        PLAIN.replace(' xmlns="http://www.ismrm.org/ISMRMRD"', ""),
        PLAIN.replace("ismrm.org/ISMRMRD", "example.org/other"),
        PLAIN.replace("<encoding>", "<version>7</version><encoding><!-- a comment --><?also this?>", 1),
        "\ufeff" + PLAIN,
        PLAIN + "\0\0\n",
        PLAIN.replace("1.0", '1.0" encoding="utf-16').encode("utf-16"),
        PLAIN.replace("TEST", "TÄST").encode("latin-1"),
        PLAIN.replace("TEST", "TÄST").replace("1.0", '1.0" encoding="ISO-8859-1').encode("latin-1"),
        PLAIN.replace("1.0", '1.0" encoding="no such code'),
        PLAIN.replace("cartesian", " Cartesian\n"),
        PLAIN.replace("<x>128</x>", "<x>128</x><x> 128 </x>").replace("<y>64</y>", "<y>64.0</y>"),
    ],
)
def test_other_writers(text: str | bytes) -> None:
    found = read(text)
    assert not found.warnings
    plain = ismrmrd.xsd.CreateFromDocument(PLAIN.encode())
    assert found.fields.encoding == plain.encoding
    assert found.fields.measurementInformation == plain.measurementInformation
    assert found.fields.subjectInformation.patientName in {"TEST^CASE", "TÄST^CASE"}


@pytest.mark.parametrize(
    ("more", "kept"),
    [
        ("<sequenceParameters><TR>often</TR><TR>5</TR></sequenceParameters>", lambda f: f.sequenceParameters.TR == [5]),
        ("<sequenceParameters><TE>nan</TE></sequenceParameters>", lambda f: not f.sequenceParameters.TE),
        (
            "<userParameters><userParameterLong><name>a</name></userParameterLong><userParameterLong><name>b</name>"
            "<value>3</value></userParameterLong></userParameters>",
            lambda f: [one.name for one in f.userParameters.userParameterLong] == ["b"],
        ),
        (
            "<sequenceParameters><diffusion><bvalue>1000</bvalue></diffusion></sequenceParameters>",
            lambda f: not f.sequenceParameters.diffusion,
        ),
        (
            "<acquisitionSystemInformation><systemFieldStrength_T>inf</systemFieldStrength_T>"
            "<receiverChannels>1e99</receiverChannels></acquisitionSystemInformation>",
            lambda f: f.acquisitionSystemInformation.receiverChannels is None,
        ),
    ],
)
def test_optional_parts_that_are_wrong_are_left_out(more: str, kept: Any) -> None:
    found = read(header(after=more))
    assert kept(found.fields)
    assert found.warnings and all("is not used" in note for note in found.warnings)


def test_parallel_imaging_without_factors() -> None:
    found = read(header(in_encoding="<parallelImaging><calibrationMode>Embedded</calibrationMode></parallelImaging>"))
    imaging = found.fields.encoding[0].parallelImaging
    assert imaging.calibrationMode.value == "embedded"
    assert imaging.accelerationFactor.kspace_encoding_step_1 == 1


def test_whole_numbers_with_a_fraction() -> None:
    """philips_to_ismrmrd#4"""
    found = read(PLAIN.replace("<z>1</z>", "<z>0.99996</z>", 1).replace("123000000", "123252541.7"))
    assert found.fields.encoding[0].encodedSpace.matrixSize.z == 1
    assert found.fields.experimentalConditions.H1resonanceFrequency_Hz == 123252542
    (note,) = found.warnings
    assert "encodedSpace/matrixSize/z is not a whole number; 1 is used" in note


def test_an_accession_number_with_letters_is_kept() -> None:
    text = PLAIN.replace("<studyDate>", "<accessionNumber>RAD-17</accessionNumber><studyDate>")
    assert read(text).fields.studyInformation.accessionNumber == "RAD-17"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            PLAIN.replace("<x>150</x>", "<x>nan</x>"),
            "fieldOfView_mm/x in its ISMRMRD header is not a finite number",
        ),
        (PLAIN.replace("<x>150</x>", "<x>-inf</x>"), "fieldOfView_mm/x in its ISMRMRD header is not a finite number"),
        (PLAIN.replace("<x>128</x>", "<x>1e300</x>"), "encodedSpace/matrixSize/x in its ISMRMRD header is too large"),
        (PLAIN.replace("<x>128</x>", f"<x>{'9' * 400}</x>"), "encodedSpace/matrixSize/x in its ISMRMRD header is"),
        (PLAIN.replace("<x>128</x>", "<x>128</x><x>64</x>"), "encodedSpace/matrixSize/x stands 2 times"),
        (without(without(PLAIN, "encodedSpace"), "reconSpace"), "encoding 0/encodedSpace is missing"),
        (
            without(PLAIN, "trajectory").replace("<encodedSpace>", "<trajectoryDescription/><encodedSpace>"),
            "trajectory",
        ),
        (
            PLAIN.replace("<x>300</x>", "<x>1e-320</x>").replace("<x>128</x>", ""),
            "encodedSpace/matrixSize/x is missing",
        ),
        (header(trajectory="the name of a patient"), "the trajectory of encoding 0 is unknown"),
        ("<ismrmrdHeader/>", "header has no encoding section"),
    ],
)
def test_what_cannot_be_derived_is_an_error(text: str, message: str) -> None:
    assert message in refused(text)
    assert "name of a patient" not in refused(text)


def test_images_are_those_of_the_complete_header(tmp_path: Path) -> None:
    """Without trajectory, position, limits and what follows from the rest, the image is the same."""
    data = kspace()
    text = PLAIN
    for name in ("trajectory", "patientPosition", "encodingLimits", "experimentalConditions"):
        text = without(text, name)
    text = text.replace("<x>150</x><y>150</y><z>5</z>", "<x>0</x><y>0</y><z>0</z>")
    _, (plain,) = replay(write(tmp_path / "plain.h5", (PLAIN, lines(data))), tmp_path / "plain")
    result, (found,) = replay(write(tmp_path / "old.h5", (text, lines(data))), tmp_path / "old")
    assert np.array_equal(found.pixel_array, plain.pixel_array)
    assert found.ImagePositionPatient == plain.ImagePositionPatient and found.PixelSpacing == plain.PixelSpacing
    assert marker(found) == pytest.approx(MARKER, abs=0.3)
    assert sum("header: " in note for note in result.warnings) == 5


def test_lines_with_a_trajectory_that_the_header_does_not_name(tmp_path: Path) -> None:
    acquisitions = lines(kspace())
    for line in acquisitions:
        line.resize(128, 4, 2)
    path = write(tmp_path / "scan.h5", (without(PLAIN, "trajectory"), acquisitions))
    with RawScan(path) as scan, pytest.raises(ReconError, match="acquisition 0 has a trajectory"):
        list(scan.acquisitions())


SPACES = (("encodedSpace", (256, 1, 1), (300, 300, 5)), ("reconSpace", (128, 128, 1), (300, 300, 5)))


def test_radial_navigators_in_an_encoding_of_their_own(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = kspace()
    text = PLAIN.replace("</encoding>", "</encoding>" + encoding(SPACES, {}, "radial"))
    extra = lines(data[:, :4], encoding_space_ref=1)
    for flag in (ismrmrd.ACQ_IS_NAVIGATION_DATA, None):  # some converters do not flag them
        for line in extra:
            line.clearAllFlags()
            if flag:
                line.set_flag(flag)
        path = write(tmp_path / "scan.h5", (text, [*extra[:2], *lines(data), *extra[2:]]))
        caplog.clear()
        with RawScan(path) as scan, caplog.at_level(logging.WARNING):
            assert [line.encoding_space_ref for line in scan.acquisitions()] == [0] * 64
        assert ("encoding 1 is radial" in caplog.text) == (flag is None)
    _, (plain,) = replay(write(tmp_path / "plain.h5", (PLAIN, lines(data))), tmp_path / "plain")
    _, (found,) = replay(path, tmp_path / "found")
    assert np.array_equal(found.pixel_array, plain.pixel_array)
    assert found.ImagePositionPatient == plain.ImagePositionPatient


VALUES = ("", "nan", "inf", "-1", "1e400", "0", "9" * 20, "abc", "0.3", "1e-320", "1_000", " 5 ", "0x10", "None")


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_damaged_headers_are_read_or_refused(data: st.DataObject) -> None:
    """Elements that are missing, doubled, empty or no numbers: never an error of Python's."""
    text = PLAIN
    for _ in range(data.draw(st.integers(1, 4))):
        places = [match.span(1) for match in re.finditer(r"(<(\w+)>[^<]*</\2>)", text)]
        first, last = data.draw(st.sampled_from(places))
        element = text[first:last]
        value = re.sub(">.*<", f">{data.draw(st.sampled_from(VALUES))}<", element)
        text = text[:first] + data.draw(st.sampled_from(("", element * 2, value, element + value))) + text[last:]
    try:
        read(text)
    except ReconError as error:
        assert str(error).startswith("scan.h5: ") and not NOTHING_OF_PYTHON.search(str(error))

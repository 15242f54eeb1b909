"""Headers that miss elements, or hold unusual ones, as scanners and converters write them."""

from __future__ import annotations

import pytest

from tests.raw_files import header, line, lines, noise
from tests.real_world.conftest import is_right

SYSTEM = (
    "<acquisitionSystemInformation><systemVendor>A MAKER</systemVendor><receiverChannels>{}</receiverChannels>{}"
    "</acquisitionSystemInformation>"
)


def changed(old: str, new: str) -> str:
    """The valid header with a text replaced."""
    text = header()
    assert old in text
    return text.replace(old, new)


ENCODED = "<encodedSpace>"
VALID = header()
UNUSUAL = {
    "mrpro#1005 no trajectory": header(trajectory=None),
    "mrpro#1005 no patient position": header(patient_position=None),
    "SIRF-SuperBuild#1015 element of a newer schema": header(after="<futureThing>1</futureThing>"),
    "SIRF#1021 version of an older schema": changed("<subjectInformation>", "<version>3</version><subjectInformation>"),
    "ismrmrd#8 version on the root": changed('ISMRMRD">', 'ISMRMRD" version="1">'),
    "ismrmrd#8 schema location on the root": changed(
        'ISMRMRD">',
        'ISMRMRD" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" '
        'xsi:schemaLocation="http://www.ismrm.org/ISMRMRD ismrmrd.xsd">',
    ),
    "MRIReco.jl#192 empty echo train length": header(in_encoding="<echoTrainLength/>"),
    "siemens_to_ismrmrd#91 trajectory described before the encoded space": changed(
        ENCODED,
        "<trajectoryDescription><identifier>none</identifier><comment/></trajectoryDescription>" + ENCODED,
    ),
    "nexus-console#109 matrix sizes with a point": header(
        encoded=("128.0", "64.0", "1.0"), recon=("64.0", "64.0", "1.0")
    ),
    "philips_to_ismrmrd#8 echo train length for TR": header(
        after="<sequenceParameters><TR>9</TR><TE>0</TE><flipAngle_deg>400</flipAngle_deg></sequenceParameters>"
    ),
    "ge_to_ismrmrd#25 GE, no slice thickness": header(
        after=SYSTEM.format(4, "<systemModel>DISCOVERY MR750</systemModel>").replace("A MAKER", "GE MEDICAL SYSTEMS")
    ),
    "siemens_to_ismrmrd#130 coil labels without names": header(
        after=SYSTEM.format(
            4, "".join(f"<coilLabel><coilNumber>{n}</coilNumber><coilName>:</coilName></coilLabel>" for n in range(4))
        )
    ),
    "siemens_to_ismrmrd#51 study time after midnight": changed("10:00:00", "25:10:00"),
    "siemens_to_ismrmrd#33 patient name crossed out": changed("TEST^CASE", "xxxxxxxx"),
    "gadgetron#474 incomplete noise measurement": header(
        in_measurement="<measurementDependency><dependencyType>Noise</dependencyType><measurementID>66020__"
        "</measurementID></measurementDependency>"
    ),
    "nexus-console#80 no measurement information": VALID[: VALID.index("<measurementInformation>")]
    + VALID[VALID.index("</measurementInformation>") + len("</measurementInformation>") :],
    "mrpro#421 empty elements": header(identity=False, in_measurement="<seriesDate/><seriesTime/>"),
}


@pytest.mark.parametrize("text", UNUSUAL.values(), ids=UNUSUAL.keys())
def test_unusual_header(reconstruct, data, text):
    result, (image,) = reconstruct(text, lines(data))
    assert is_right(image)
    assert not any("<" in warning or "object at" in warning for warning in result.warnings)


def test_other_number_of_receiver_channels(reconstruct, data):
    """gadgetron#39: the header counts the channels of the scanner, the lines those that were used."""
    result, (image,) = reconstruct(header(after=SYSTEM.format(32, "")), lines(data))
    assert is_right(image)
    assert any("announces 32 receiver channels, the lines have 4" in text for text in result.warnings)


def test_the_same_encoding_twice(reconstruct, data):
    """SIRF#1049: the header lists its encoding twice, all lines refer to the first."""
    start, end = VALID.index("<encoding>"), VALID.index("</encoding>") + len("</encoding>")
    _, (image,) = reconstruct(VALID[:end] + VALID[start:end] + VALID[end:], lines(data))
    assert is_right(image)


def test_table_position_of_tens_of_thousands(reconstruct, data):
    """SIRF#221: the patient's position does not depend on the table's."""
    made = lines(data)
    for one in made:
        one.patient_table_position[:] = (0, 0, -34567)
    _, (image,) = reconstruct(header(), made)
    assert is_right(image)


@pytest.mark.parametrize("stamp", ["zero", "midnight", "microseconds"])
def test_time_stamps_of_no_use(reconstruct, data, stamp):
    """philips_to_ismrmrd#12 (all 0), mrpro#494 (2.5 ms since midnight), nexus-console#123 (microseconds, 32 bits)."""
    made = lines(data)
    for number, one in enumerate(made):
        one.acquisition_time_stamp = {
            "zero": 0,
            "midnight": (86400 * 400 - 10 + number) % (86400 * 400),
            "microseconds": (2**32 - 30000 + 1000 * number) % 2**32,
        }[stamp]
    _, (image,) = reconstruct(header(), made)
    assert is_right(image)
    hours = int(str(image.get("AcquisitionTime", "000000"))[:2] or 0)
    assert 0 <= hours < 24


def test_noise_measurement_without_measurement_id(reconstruct, data):
    """gadgetron#474, #437: a noise scan in the file, and nothing names it."""
    made = [line(noise(), 0, flags=[19]), *lines(data)]
    _, (image,) = reconstruct(header(measurement_id=None), made)
    assert is_right(image)

"""Chains and settings that cannot be run."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from tests.pipelines.bad_input.helpers import BOMB, EXTERNAL, closed_port


@pytest.mark.slow
@pytest.mark.parametrize(
    ("setting", "text"),
    [
        (
            "generative_recon.metod=x",
            "gadget GenerativeRecon: unknown property 'metod'; did you mean 'method'? it has: method, ",
        ),
        (
            "generative_recon.method=magic",
            "property 'method' is 'magic'; it must be one of 'zero_filled', 'cg_sense', ",
        ),
        ("espirit.map_sets=9", "gadget Espirit: property 'map_sets' is '9'; it must be a whole number from 1 to 4"),
        ("coil_compression.energy=nan", "property 'energy' is 'nan'; it must be a number from 0.0 to 1.0"),
        ("Reconstruction.method=cg_sense", "gadget Reconstruction: unknown property 'method'; its properties are"),
        ("NoiseAdjustGadget.speed=1", "gadget NoiseAdjustGadget: unknown property 'speed'"),
        ("dicom_output.anonymize=perhaps", "property 'anonymize' is 'perhaps'; it must be true or false"),
        ("grappa.kernel=5", "cg_sense: no gadget is called 'grappa'; it has: NoiseAdjustGadget, "),
        ("generative_recon.method", "--set generative_recon.method: give gadget.property=value"),
        ("method=cg_sense", "--set method=cg_sense: give gadget.property=value"),
        (".method=cg_sense", "--set .method=cg_sense: give gadget.property=value"),
        ("=", "--set =: give gadget.property=value"),
        ("", "--set : give gadget.property=value"),
    ],
)
def test_bad_setting(refused: Any, raw: Path, setting: str, text: str) -> None:
    assert text in refused(raw, "--set", setting)


def test_unknown_chain(refused: Any, raw: Path) -> None:
    line = refused(raw, "-c", "grappa")
    assert "grappa: no such chain; give an XML file or one of: " in line
    assert "l1_wavelet" in line


def stream(inner: str, version: str = "<version>2</version>") -> str:
    return f"<configuration>{version}<stream>{inner}</stream></configuration>"


def python_gadget(attributes: str) -> str:
    return stream(f"<external><execute {attributes}/></external>")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("xml", "text"),
    [
        ("", "not an XML chain"),
        ("no XML", "not an XML chain"),
        ("<configuration>", "not an XML chain"),
        ("<configuration>&surprise;</configuration>", "not an XML chain"),
        (BOMB + stream("&e11;"), "not an XML chain (EntitiesForbidden"),
        (EXTERNAL + stream("&e11;"), "not an XML chain (EntitiesForbidden"),
        ("<html/>", "not a Gadgetron chain; its root must be <configuration>"),
        (stream("<gadget/>", version=""), "its root must be <configuration> with <version>2</version>"),
        (stream("<gadget/>", "<version>1</version>"), "its root must be <configuration> with <version>2</version>"),
        ("<configuration><version>2</version></configuration>", "it has no <stream>"),
        (stream(""), "it has no gadgets"),
        ("<gadgetronStreamConfiguration/>", "it has no gadgets"),
        (
            stream("<gadget><dll>x</dll><classname>GenericReconCartesianGrappaGadget</classname></gadget>"),
            "gadget GenericReconCartesianGrappaGadget: it has no Python twin here; run this chain on a real Gadgetron",
        ),
        (stream("<parallel><branch/></parallel>"), "<parallel> is run by a real Gadgetron only; use --gadgetron"),
        (stream("<external/>"), "an <external> has neither <execute> nor <connect>"),
        (stream('<external><connect port="many"/></external>'), "<connect> has port 'many'; it must be a number"),
        (python_gadget('name="gadgets.magic" target="A" type="python"'), "external gadgets.magic: the module cannot"),
        (python_gadget('name="gadgets.espirit" target="A" type="python"'), "external gadgets.espirit: it has no 'A'"),
        (python_gadget('name="recon" target="A" type="matlab"'), "external recon is of type 'matlab'; only python"),
    ],
)
def test_chain_that_cannot_be_run(refused: Any, raw: Path, tmp_path: Path, xml: str, text: str) -> None:
    path = tmp_path / "chain.xml"
    path.write_text(xml)
    start = time.monotonic()
    assert text in refused(raw, "-c", path)
    assert time.monotonic() - start < 5.0


def test_chain_that_sends_no_images(refused: Any, raw: Path, tmp_path: Path) -> None:
    path = tmp_path / "chain.xml"
    path.write_text(stream("<gadget><dll>x</dll><classname>NoiseAdjustGadget</classname></gadget>"))
    assert f"{raw}: no image came back; check that chain {path} sends images" in refused(raw, "-c", path)


def test_listener_of_a_chain_is_not_there(refused: Any, raw: Path, tmp_path: Path) -> None:
    path = tmp_path / "chain.xml"
    port = closed_port()
    path.write_text(stream(f'<external><connect address="127.0.0.1" port="{port}"/></external>'))
    assert f"127.0.0.1:{port}: no server answers there" in refused(raw, "-c", path)


@pytest.mark.parametrize("port", ["99999", "0", "²", ""])
def test_port_of_a_listener_that_cannot_be(refused: Any, raw: Path, tmp_path: Path, port: str) -> None:
    path = tmp_path / "chain.xml"
    path.write_text(stream(f'<external><connect address="127.0.0.1" port="{port}"/></external>'), encoding="utf-8")
    assert f"port '{port}'; it must be a number from 1 to 65535" in refused(raw, "-c", path)


def test_dicom_folder_of_a_replay_is_its_output_folder(refused: Any, raw: Path) -> None:
    line = refused(raw, "--set", "dicom_output.folder=/tmp/elsewhere")
    assert "a replay writes its DICOM below its output folder; choose that with --out" in line

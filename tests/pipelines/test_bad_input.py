"""Whatever is wrong: one clear line on stderr, exit code 1, and nothing half-written."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import resource
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import ismrmrd
import numpy as np
import pytest

from gadgets import dicom_output
from gadgets.espirit import Espirit
from gadgets.generative_recon import GenerativeRecon
from gadgets.twins import RemoveROOversamplingGadget
from pipelines.cli import entry as cli
from pipelines.raw import RawScan
from pipelines.simulation import SimulationSettings, simulate, write_raw

NOISE = ismrmrd.ACQ_IS_NOISE_MEASUREMENT
CALIBRATION = ismrmrd.ACQ_IS_PARALLEL_CALIBRATION
LAST_IN_SLICE = ismrmrd.ACQ_LAST_IN_SLICE
LINE = 10  # an imaging line; the noise measurement is before it
COMMAND = [sys.executable, "-c", "from pipelines.cli import main; main()"]

SMALL = SimulationSettings(
    matrix=(32, 32, 1),
    coils=4,
    slices=2,
    sampling="uniform",
    acceleration=2,
    calibration_lines=12,
    noise_scan=True,
    noise_level=0.01,
)


@pytest.fixture(scope="module")
def valid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("raw") / "valid.h5"
    write_raw(path, simulate(SMALL))
    return path


@pytest.fixture
def raw(valid: Path, tmp_path: Path) -> Path:
    """A copy of a valid scan, to be spoilt."""
    return Path(shutil.copy(valid, tmp_path / "scan.h5"))


class Stopped(BaseException):
    """Stands for the end of the process."""


@pytest.fixture
def genrecon(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Any]:
    """Runs the command line in this process: arguments in, (exit code, stdout, stderr) out."""

    def stop(code: int) -> None:
        raise Stopped(code)

    def run(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["genrecon", *map(str, arguments)])
        try:
            cli.main()
        except Stopped as end:
            code = end.args[0]
        except SystemExit as end:
            code = end.code or 0
        else:
            code = 0
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    logger = logging.getLogger("genrecon")
    handlers, level, on_terminate = list(logger.handlers), logger.level, signal.getsignal(signal.SIGTERM)
    for name in ("excepthook", "unraisablehook"):
        monkeypatch.setattr(sys, name, getattr(sys, name))
    monkeypatch.setattr(cli, "_exit_now", stop)
    yield run
    signal.signal(signal.SIGTERM, on_terminate)
    logger.handlers[:] = handlers
    logger.setLevel(level)


def tree(folder: Path) -> dict[str, bytes | None]:
    """All paths below a folder and what is in them."""
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def the_line(stderr: str) -> str:
    """The only line of stderr, an error of the user's."""
    lines = stderr.splitlines()
    assert len(lines) == 1, stderr
    assert lines[0].startswith("error: ")
    assert "Traceback" not in stderr
    return lines[0]


@pytest.fixture
def refused(genrecon: Any, tmp_path: Path) -> Callable[..., str]:
    """Replays, expects a refusal that leaves every file below tmp_path as it was, and gives its line."""

    def run(*arguments: object, out: Path | None = None) -> str:
        chosen = out or tmp_path / "results" / "of" / "scan"
        before = tree(tmp_path)
        code, _, stderr = genrecon("replay", *arguments, "--out", chosen)
        assert code == 1, stderr
        assert tree(tmp_path) == before
        line = the_line(stderr)
        assert "unexpected" not in line
        return line

    return run


def test_the_scan_is_valid(genrecon: Any, raw: Path, tmp_path: Path) -> None:
    """Otherwise the refusals below would prove nothing."""
    code, stdout, stderr = genrecon("replay", raw, "-c", "cg_sense", "-o", tmp_path / "results" / "scan")
    assert (code, stderr) == (0, "")
    assert "2 images, 2 DICOM files" in stdout
    names = sorted(path.name for path in (tmp_path / "results" / "scan").iterdir())
    assert names == ["dicom", "images.h5", "replay.json", "series_001.png"]
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["scan"]


# --- files ---------------------------------------------------------------------------------------------------------


def test_missing_file(refused: Any, tmp_path: Path) -> None:
    assert "nothing.h5: no such file; give the path" in refused(tmp_path / "nothing.h5")


def test_folder_instead_of_a_file(refused: Any, tmp_path: Path) -> None:
    assert f"{tmp_path}: it is a folder; give the path of" in refused(tmp_path)


@pytest.mark.parametrize("content", [b"", b"x", b"just some text\n" * 1000, b"\x89HDF\r\n\x1a\n"])
def test_no_hdf5(refused: Any, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "scan.h5"
    path.write_bytes(content)
    assert "scan.h5: " in (line := refused(path))
    assert "not an HDF5 file; convert the raw data" in line or "cannot be read" in line or "truncated" in line


@pytest.mark.parametrize("part", [0.9999, 0.9, 0.5, 0.2, 0.02, 0.004])
def test_truncated_file(refused: Any, raw: Path, part: float) -> None:
    os.truncate(raw, int(part * raw.stat().st_size))
    assert "scan.h5: the file is truncated; copy it again" in refused(raw)


def test_unreadable_block(refused: Any, raw: Path) -> None:
    """The header is good, the table of acquisitions is not: its compressed bytes are spoilt."""
    with h5py.File(raw, "r+") as file:
        rows = file["dataset/data"][:]
        del file["dataset/data"]
        table = file.create_dataset("dataset/data", data=rows, chunks=(32,), compression="gzip")
        second = table.id.get_chunk_info(1)
    content = bytearray(raw.read_bytes())
    content[second.byte_offset : second.byte_offset + second.size] = b"\xff" * second.size
    raw.write_bytes(content)
    line = refused(raw)
    assert f"{raw}: acquisition 32 and on cannot be read (" in line
    assert "copy or convert the file again" in line


@pytest.mark.parametrize("names", [(), ("picture",), ("picture", "dataset/picture")])
def test_hdf5_of_something_else(refused: Any, tmp_path: Path, names: tuple[str, ...]) -> None:
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        for name in names:
            file[name] = np.zeros(3)
    assert "scan.h5: no ISMRMRD header in it; give an ISMRMRD raw file" in refused(tmp_path / "scan.h5")


# --- headers -------------------------------------------------------------------------------------------------------


def set_header(path: Path, text: Any) -> None:
    with h5py.File(path, "r+") as file:
        del file["dataset/xml"]
        if text is not None:
            file.create_dataset("dataset/xml", (1,), dtype=h5py.special_dtype(vlen=bytes))[0] = text


def change_header(path: Path, change: Callable[[Any], None]) -> None:
    with h5py.File(path) as file:
        header = ismrmrd.xsd.CreateFromDocument(file["dataset/xml"][0])
    change(header)
    set_header(path, ismrmrd.xsd.ToXML(header).encode())


ENTITIES = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 20}">' for n in range(1, 12))
BOMB = f'<?xml version="1.0"?><!DOCTYPE b [<!ENTITY e0 "boom">{ENTITIES}]>'
EXTERNAL = '<?xml version="1.0"?><!DOCTYPE b [<!ENTITY e11 SYSTEM "file:///etc/hostname">]>'
IN_HEADER = '<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD"><version>&e11;</version></ismrmrdHeader>'


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"no XML at all",
        b"<ismrmrdHeader>",
        b"<html><body/></html>",
        b"\xff\xfe",
        b'<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD"><surprise/></ismrmrdHeader>',
        (BOMB + IN_HEADER).encode(),
        (EXTERNAL + IN_HEADER).encode(),
    ],
    ids=["empty", "text", "open", "html", "binary", "unknown", "bomb", "external"],
)
def test_header_that_is_no_ismrmrd_xml(refused: Any, raw: Path, text: bytes) -> None:
    secret = raw.with_name("secret.txt")
    secret.write_text("top secret")
    set_header(raw, text.replace(b"/etc/hostname", str(secret).encode()))
    start = time.monotonic()
    line = refused(raw)
    assert "top secret" not in line
    assert "scan.h5: its ISMRMRD header cannot be read" in line
    assert "convert the raw data again" in line
    assert time.monotonic() - start < 5.0


def test_header_with_texts_for_numbers(refused: Any, raw: Path) -> None:
    with h5py.File(raw) as file:
        text = bytes(np.ravel(file["dataset/xml"][()])[0])
    for name, old, new in (("x", b"<x>", b"<x>3B"), ("H1resonanceFrequency_Hz", b"Frequency_Hz>1", b"Frequency_Hz>B")):
        assert old in text
        set_header(raw, text.replace(old, new, 1))
        line = refused(raw)
        assert f"{name} in its ISMRMRD header is not a number; correct the header" in line and "3B" not in line


def test_header_is_missing(refused: Any, raw: Path) -> None:
    set_header(raw, None)
    assert "scan.h5: no ISMRMRD header (xml) in group /dataset" in refused(raw)


def test_header_is_an_empty_table(refused: Any, raw: Path) -> None:
    with h5py.File(raw, "r+") as file:
        del file["dataset/xml"]
        file.create_dataset("dataset/xml", (0,), dtype=h5py.special_dtype(vlen=bytes))
    assert "scan.h5: the file cannot be read" in refused(raw)


def test_header_as_a_scalar_is_read(raw: Path) -> None:
    with h5py.File(raw, "r+") as file:
        text = file["dataset/xml"][0]
        del file["dataset/xml"]
        file["dataset/xml"] = text
    with RawScan(raw) as scan:
        assert scan.header_xml == text


def no_encoding(header: Any) -> None:
    header.encoding = []


def radial(header: Any) -> None:
    header.encoding[0].trajectory = ismrmrd.xsd.trajectoryType.RADIAL


def matrix_of_zero(header: Any) -> None:
    header.encoding[0].reconSpace.matrixSize.y = 0


def negative_field_of_view(header: Any) -> None:
    header.encoding[0].encodedSpace.fieldOfView_mm.x = -220.0


def limits_beyond_the_matrix(header: Any) -> None:
    header.encoding[0].encodingLimits.kspace_encoding_step_1.maximum = 32


def centre_outside_the_limits(header: Any) -> None:
    header.encoding[0].encodingLimits.kspace_encoding_step_1.center = 40


def limits_of_a_3d_scan(header: Any) -> None:
    header.encoding[0].encodingLimits.kspace_encoding_step_2 = ismrmrd.xsd.limitType(minimum=0, maximum=7, center=4)


def other_coils(header: Any) -> None:
    header.acquisitionSystemInformation.receiverChannels = 6


def larger_readout(header: Any) -> None:
    header.encoding[0].encodedSpace.matrixSize.x = 96


def smaller_readout(header: Any) -> None:
    header.encoding[0].encodedSpace.matrixSize.x = 48


def narrower_limits(header: Any) -> None:
    header.encoding[0].encodingLimits.kspace_encoding_step_1.maximum = 20


def no_limits_small_matrix(header: Any) -> None:
    header.encoding[0].encodingLimits.kspace_encoding_step_1 = None
    header.encoding[0].encodedSpace.matrixSize.y = 24


def recon_larger_than_encoded(header: Any) -> None:
    header.encoding[0].reconSpace.fieldOfView_mm.x = 1000.0


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (no_encoding, "header has no encoding section"),
        (radial, "the trajectory of encoding 0 is radial; only cartesian ones"),
        (matrix_of_zero, "reconSpace of encoding 0 has matrix [32, 0, 1]"),
        (negative_field_of_view, "encodedSpace of encoding 0 has matrix [64, 32, 1] and field of view [-220.0"),
        (limits_beyond_the_matrix, "kspace_encoding_step_1 limits 0..32 (centre 16) do not fit the encoded matrix"),
        (centre_outside_the_limits, "kspace_encoding_step_1 limits 0..31 (centre 40) do not fit"),
        (limits_of_a_3d_scan, "kspace_encoding_step_2 limits 0..7 (centre 4) do not fit the encoded matrix of 1"),
        (other_coils, "acquisition 7 has 4 coils, the header or the lines before it say 6"),
        (larger_readout, "acquisition 7 has 64 samples, the header's encoded matrix is 96"),
        (smaller_readout, "acquisition 7 has 64 samples, the header's encoded matrix is 48"),
        (narrower_limits, "has kspace_encode_step_1 21, the header's limits are 0..20"),
        (no_limits_small_matrix, "has kspace_encode_step_1 24, the header's limits are 0..23"),
    ],
)
def test_header_that_cannot_be_used(refused: Any, raw: Path, change: Callable[[Any], None], text: str) -> None:
    change_header(raw, change)
    line = refused(raw)
    assert line.startswith(f"error: {raw}: ")
    assert text in line


def test_reconstructed_field_of_view_larger_than_the_encoded(refused: Any, raw: Path) -> None:
    change_header(raw, recon_larger_than_encoded)
    assert "header: encoded field of view is smaller than the reconstructed one along the readout" in refused(raw)


# --- acquisitions --------------------------------------------------------------------------------------------------


def change_rows(path: Path, change: Callable[[Any], Any]) -> None:
    """Change the acquisitions' table; the function may return another one."""
    with h5py.File(path, "r+") as file:
        rows = file["dataset/data"][:]
        changed = change(rows)
        rows = rows if changed is None else changed
        file["dataset/data"].resize((len(rows),))
        if len(rows):
            file["dataset/data"][:] = rows


def flagged(rows: Any, flag: int) -> Any:
    return (rows["head"]["flags"] >> np.uint64(flag - 1)) & np.uint64(1) > 0


def test_no_table_of_acquisitions(refused: Any, raw: Path) -> None:
    with h5py.File(raw, "r+") as file:
        del file["dataset/data"]
    assert f"{raw}: it has no acquisitions; nothing to reconstruct" in refused(raw)


def test_table_of_no_acquisitions(refused: Any, raw: Path) -> None:
    change_rows(raw, lambda rows: rows[:0])
    assert f"{raw}: it has no acquisitions; nothing to reconstruct" in refused(raw)


@pytest.mark.parametrize("kind", ["numbers", "group", "columns"])
def test_table_of_something_else(refused: Any, raw: Path, kind: str) -> None:
    with h5py.File(raw, "r+") as file:
        del file["dataset/data"]
        if kind == "group":
            file.create_group("dataset/data")
        else:
            file["dataset/data"] = np.zeros(4, np.float32 if kind == "numbers" else [("head", "f4"), ("data", "f4")])
    assert f"{raw}: /dataset/data is no table of ISMRMRD acquisitions" in refused(raw)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("index", [0, 1, -1], ids=["noise", "first", "last"])
def test_samples_that_are_no_numbers(refused: Any, raw: Path, value: float, index: int) -> None:
    def spoil(rows: Any) -> None:
        rows[index]["data"][7] = value

    change_rows(raw, spoil)
    with h5py.File(raw) as file:
        number = index % len(file["dataset/data"])
    assert f"{raw}: acquisition {number} has NaN or infinite samples; mend or leave out" in refused(raw)


def set_head(name: str, value: int, index: int = LINE) -> Callable[[Any], None]:
    def change(rows: Any) -> None:
        rows["head"][name][index] = value

    return change


def set_counter(name: str, value: int, index: int = LINE) -> Callable[[Any], None]:
    def change(rows: Any) -> None:
        rows["head"]["idx"][name][index] = value

    return change


def cut_samples(rows: Any) -> None:
    rows[LINE]["data"] = rows[LINE]["data"][:-3]


def shorter_readout(rows: Any) -> None:
    rows[LINE]["data"] = rows[LINE]["data"][: 2 * 4 * 60]
    rows["head"]["number_of_samples"][LINE] = 60
    rows["head"]["center_sample"][LINE] = 30


def fewer_coils(rows: Any) -> None:
    rows[LINE]["data"] = rows[LINE]["data"][: 2 * 3 * 64]
    rows["head"]["active_channels"][LINE] = 3


def no_samples(rows: Any) -> None:
    rows[LINE]["data"] = rows[LINE]["data"][:0]
    rows["head"]["number_of_samples"][LINE] = 0
    rows["head"]["center_sample"][LINE] = 0


def stray_trajectory(rows: Any) -> None:
    rows[LINE]["traj"] = np.zeros(7, np.float32)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (cut_samples, "holds 254.5 samples, its header says 4 coils x 64"),
        (set_head("active_channels", 5), "holds 256 samples, its header says 5 coils x 64"),
        (set_head("number_of_samples", 63), "holds 256 samples, its header says 4 coils x 63"),
        (no_samples, "holds 0 samples, its header says 4 coils x 0"),
        (shorter_readout, "has 60 samples, the header's encoded matrix is 64"),
        (fewer_coils, "has 3 coils, the header or the lines before it say 4"),
        (stray_trajectory, "holds 7 trajectory values, its header says 64 x 0"),
        (set_counter("kspace_encode_step_1", 32), "has kspace_encode_step_1 32, the header's limits are 0..31"),
        (set_counter("kspace_encode_step_1", 65535), "has kspace_encode_step_1 65535, the header's limits are 0..31"),
        (set_counter("kspace_encode_step_2", 1), "has kspace_encode_step_2 1, the header's limits are 0..0"),
        (set_head("encoding_space_ref", 3), "refers to encoding 3, the header has 1"),
    ],
)
def test_acquisition_that_disagrees_with_the_header(
    refused: Any, raw: Path, change: Callable[[Any], None], text: str
) -> None:
    change_rows(raw, change)
    assert f"{raw}: acquisition {LINE} {text}" in refused(raw)


def test_coil_counts_that_change_when_the_header_gives_none(refused: Any, raw: Path) -> None:
    def no_coils(header: Any) -> None:
        header.acquisitionSystemInformation.receiverChannels = None

    change_header(raw, no_coils)
    change_rows(raw, fewer_coils)
    assert f"acquisition {LINE} has 3 coils, the header or the lines before it say 4" in refused(raw)


def test_noise_lines_that_disagree(refused: Any, raw: Path) -> None:
    def fewer_coils_in_the_second(rows: Any) -> None:
        rows[1]["data"] = rows[1]["data"][: 2 * 3 * rows["head"]["number_of_samples"][1]]
        rows["head"]["active_channels"][1] = 3

    change_rows(raw, fewer_coils_in_the_second)
    assert f"{raw}: acquisition 1 has 3 coils, the noise lines before it 4" in refused(raw)


def test_trajectory_announced_but_empty_is_left_alone(genrecon: Any, raw: Path, tmp_path: Path) -> None:
    """A Cartesian scan needs none."""

    def announce(rows: Any) -> None:
        rows["head"]["trajectory_dimensions"] = 2

    change_rows(raw, announce)
    code, stdout, stderr = genrecon("replay", raw, "-c", "cg_sense", "-o", tmp_path / "out")
    assert (code, stderr) == (0, "")
    assert "2 images" in stdout


def test_scan_of_noise_only(refused: Any, raw: Path) -> None:
    change_rows(raw, lambda rows: rows[flagged(rows, NOISE)])
    line = refused(raw)
    assert f"{raw}: none of its 7 acquisitions is an imaging line (only noise, calibration or phase" in line


def test_scan_of_calibration_lines_only(refused: Any, tmp_path: Path) -> None:
    raw = tmp_path / "scan.h5"
    write_raw(raw, simulate(replace(SMALL, slices=1, calibration="separate")))
    change_rows(raw, lambda rows: rows[flagged(rows, CALIBRATION)])
    assert f"{raw}: none of its 12 acquisitions is an imaging line" in refused(raw)


def test_line_of_a_slice_that_was_complete(refused: Any, genrecon: Any, raw: Path, tmp_path: Path) -> None:
    def repeat(rows: Any) -> Any:
        first_slice = rows["head"]["idx"]["slice"] == rows["head"]["idx"]["slice"][flagged(rows, LAST_IN_SLICE)][0]
        late = rows[first_slice & ~flagged(rows, NOISE)][:1]
        return np.concatenate([rows, late])

    change_rows(raw, repeat)
    line = refused(raw)
    assert "gadget AcquisitionAccumulateTriggerGadget: a line of slice" in line
    assert "set its property release_complete_slices to false" in line
    mend = ("--set", "AcquisitionAccumulateTriggerGadget.release_complete_slices=false")
    assert genrecon("replay", raw, "-c", "cg_sense", "-o", tmp_path / "out", *mend)[0] == 0


# --- chains and properties -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        ("generative_recon.metod=x", "gadget GenerativeRecon: unknown property 'metod'; it has: method, "),
        (
            "generative_recon.method=magic",
            "property 'method' is 'magic'; it must be one of 'zero_filled', 'cg_sense', ",
        ),
        ("espirit.map_sets=9", "gadget Espirit: property 'map_sets' is '9'; it must be a whole number from 1 to 4"),
        ("coil_compression.energy=nan", "property 'energy' is 'nan'; it must be a number from 0.5 to 1.0"),
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


# --- faults of the project's own -----------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["generative_recon", "RemoveROOversamplingGadget"])
def test_bug_in_a_gadget_is_one_line_too(
    genrecon: Any, raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    def fail(*_: Any) -> None:
        raise KeyError("oops [bold]")

    monkeypatch.setattr(GenerativeRecon, "_work", fail)
    if place != "generative_recon":
        monkeypatch.setattr(RemoveROOversamplingGadget, "_cut", fail)
    before = tree(tmp_path)
    code, _, stderr = genrecon("replay", raw, "-o", tmp_path / "out")
    expected = f"error: gadget {place}: KeyError: 'oops [bold]' (unexpected; run with --verbose for the traceback)"
    assert (code, the_line(stderr)) == (1, expected)
    code, _, stderr = genrecon("--verbose", "replay", raw, "-o", tmp_path / "out")
    assert code == 1
    assert "Traceback (most recent call last)" in stderr
    assert stderr.splitlines()[-1] == expected
    assert tree(tmp_path) == before


def test_os_error_of_a_gadget_is_not_blamed_on_the_output(
    genrecon: Any, raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Espirit, "_attach", fail)
    code, _, stderr = genrecon("replay", raw, "-o", tmp_path / "out")
    assert code == 1
    assert "gadget espirit: OSError: [Errno 5] Input/output error (unexpected" in the_line(stderr)


def test_one_bad_file_of_several(genrecon: Any, raw: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.h5"
    bad.write_text("nothing")
    code, stdout, stderr = genrecon("replay", bad, raw, "-c", "cg_sense", "-o", tmp_path / "out")
    assert code == 1
    first, last = stderr.splitlines()
    assert first.startswith(f"error: {bad}: not an HDF5 file")
    assert last == "error: replay: 1 of 2 files failed; see the lines above"
    assert "2 images" in stdout
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["scan"]


# --- output --------------------------------------------------------------------------------------------------------


def test_file_in_the_way_of_the_output(refused: Any, raw: Path, tmp_path: Path) -> None:
    obstacle = tmp_path / "out"
    obstacle.write_text("mine")
    for out in (obstacle, obstacle / "deeper", obstacle / "deeper" / "still"):
        line = refused(raw, out=out)
        assert f"{out}: cannot write there (" in line
        assert "choose another folder with --out" in line


def test_output_where_nothing_can_be_written(refused: Any, raw: Path) -> None:
    out = Path("/proc/genrecon/out")
    assert f"{out}: cannot write there (No such file or directory)" in refused(raw, out=out)


def test_name_too_long_for_the_output(refused: Any, raw: Path, tmp_path: Path) -> None:
    assert "cannot write there (File name too long)" in refused(raw, out=tmp_path / ("x" * 300))


@pytest.mark.parametrize("late", [False, True])
def test_earlier_results_stay_when_a_replay_fails(refused: Any, raw: Path, tmp_path: Path, late: bool) -> None:
    out = tmp_path / "out"
    (out / "dicom").mkdir(parents=True)
    (out / "dicom" / "old.dcm").write_text("old")
    (out / "images.h5").write_text("old")
    if late:  # the images of the first slice are there by then
        change_rows(raw, set_head("active_channels", 5, -1))
    else:
        raw.write_text("nothing")
    refused(raw, out=out)


def test_results_go_into_a_folder_that_exists(genrecon: Any, raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    (out / "images.h5").write_text("old")
    assert genrecon("replay", raw, "-c", "cg_sense", "-o", out)[0] == 0
    assert sorted(path.name for path in out.iterdir()) == [
        "dicom",
        "images.h5",
        "notes.txt",
        "replay.json",
        "series_001.png",
    ]
    assert h5py.is_hdf5(out / "images.h5")
    assert [path.name for path in tmp_path.iterdir() if "partial" in path.name] == []


def test_disk_full_for_dicom(refused: Any, raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(dicom_output, "replace_file", fail)
    out = tmp_path / "out"
    line = refused(raw, out=out)
    assert line == (
        f"error: {out}: cannot write there (No space left on device); free space or choose another folder with --out"
    )


def run_command(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, text=True, timeout=60, **options)


def test_files_that_cannot_grow(valid: Path, tmp_path: Path) -> None:
    """HDF5 fails in the middle of its file, and again when it closes it: still one line, and no crash at the end."""
    limit = 20 * 1024
    done = run_command(
        "replay",
        valid,
        "-o",
        tmp_path / "out",
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert done.returncode == 1
    assert f"{tmp_path}/out: cannot write there (File too large); free space or" in the_line(done.stderr)
    assert tree(tmp_path) == {}


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=28k", "tmpfs", str(disk)]
    if os.geteuid() or not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a full disk needs the right to mount one; test_files_that_cannot_grow stands for it")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_disk_full(valid: Path, tiny_disk: Path) -> None:
    done = run_command("replay", valid, "-o", tiny_disk / "sub" / "out")
    assert done.returncode == 1
    assert f"{tiny_disk}/sub/out: cannot write there (No space left on device)" in the_line(done.stderr)
    assert tree(tiny_disk) == {}


# --- interruption --------------------------------------------------------------------------------------------------


def test_interruption_leaves_nothing(valid: Path, tmp_path: Path) -> None:
    processes = {}
    for number in (signal.SIGTERM, signal.SIGINT):
        out = tmp_path / number.name / "out"
        arguments = ["replay", str(valid), "-o", str(out), "-c", "l1_wavelet"]
        arguments += ["--set", "generative_recon.iterations=10000"]
        processes[number] = subprocess.Popen(
            [*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
    deadline = time.monotonic() + 60.0
    while len(list(tmp_path.glob("SIG*/.out.partial-*/images.h5"))) < 2:
        assert all(process.poll() is None for process in processes.values())
        assert time.monotonic() < deadline
        time.sleep(0.02)
    time.sleep(0.3)
    start = time.monotonic()
    for number, process in processes.items():
        process.send_signal(number)
    for number, code in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        _, stderr = processes[number].communicate(timeout=30.0)
        assert (processes[number].returncode, stderr) == (code, "")
    assert time.monotonic() - start < 10.0
    assert tree(tmp_path) == {}


# --- a server that is none -----------------------------------------------------------------------------------------


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@contextlib.contextmanager
def server_that(behaves: Callable[[socket.socket], None]) -> Iterator[str]:
    """HOST:PORT of a server that does this with its only connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with contextlib.suppress(OSError):
                conn, _ = server.accept()
                with conn:
                    behaves(conn)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)
        thread.join(5.0)
        assert not thread.is_alive()


def read_all(conn: socket.socket) -> None:
    """Read until nothing more comes for a while."""
    conn.settimeout(0.2)
    with contextlib.suppress(TimeoutError):
        while conn.recv(1 << 20):
            pass


def silent(conn: socket.socket) -> None:
    conn.settimeout(20.0)
    while conn.recv(1 << 20):
        pass


def hang_up(conn: socket.socket) -> None:
    conn.recv(10)


def hang_up_at_the_end(conn: socket.socket) -> None:
    read_all(conn)


def reset(conn: socket.socket) -> None:
    conn.recv(10)
    conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def send(data: bytes) -> Callable[[socket.socket], None]:
    def behave(conn: socket.socket) -> None:
        read_all(conn)
        conn.sendall(data)
        silent(conn)

    return behave


CLOSE = struct.pack("<H", 4)


@pytest.mark.parametrize(
    ("behaves", "text"),
    [
        (silent, "no answer for 1 s; see its log or raise --timeout"),
        (hang_up, "; see its log"),
        (hang_up_at_the_end, "it closed the connection before the scan's end; see its log"),
        (reset, "; see its log"),
        (send(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "it sent a message of unknown kind 21576; check what listens"),
        (send(struct.pack("<HQ", 8, 11) + b"grappa\nfail" + CLOSE), ": grappa fail"),
        (send(struct.pack("<HI", 5, 12) + b"ERROR: broke" + CLOSE), ": ERROR: broke"),
        (send(struct.pack("<HQQQ", 1023, 1, 1, 2**60)), "no answer for 1 s"),
        (send(struct.pack("<H", 1022) + b"\xff" * 198 + bytes(8) + b"x" * 9000), "message of kind 1022 cannot be read"),
        (send(CLOSE), "no image came back; see the log of the server 127.0.0.1:"),
    ],
    ids=["silent", "hangs up", "hangs up late", "resets", "web", "error", "text", "huge", "garbage", "empty"],
)
def test_server_that_does_not_reconstruct(
    refused: Any, raw: Path, behaves: Callable[[socket.socket], None], text: str
) -> None:
    with server_that(behaves) as address:
        line = refused(raw, "--gadgetron", address, "--timeout", 1)
    assert address in line
    assert text in line


@pytest.mark.parametrize(
    ("address", "text"),
    [
        ("localhost", "server localhost: give HOST:PORT"),
        (":9002", "server :9002: give HOST:PORT"),
        ("localhost:many", "server localhost:many: give HOST:PORT"),
        ("localhost:²", "server localhost:²: give HOST:PORT"),
        ("localhost:70000", "server localhost:70000: give HOST:PORT"),
        ("nowhere.invalid:9002", "nowhere.invalid:9002: no server answers there ("),
        (f"{'x' * 80}:9002", f"{'x' * 80}:9002: no server answers there ("),
    ],
)
def test_address_of_no_server(refused: Any, raw: Path, address: str, text: str) -> None:
    assert text in refused(raw, "--gadgetron", address)


def test_nobody_listens(refused: Any, raw: Path) -> None:
    port = closed_port()
    line = refused(raw, "--gadgetron", f"127.0.0.1:{port}")
    assert f"127.0.0.1:{port}: no server answers there (Connection refused); start it or correct HOST:PORT" in line


def test_bad_file_is_found_while_a_server_reconstructs(refused: Any, raw: Path) -> None:
    change_rows(raw, set_head("active_channels", 5, -1))
    with server_that(silent) as address:
        assert f"{raw}: acquisition " in refused(raw, "--gadgetron", address, "--timeout", 5)


# --- info ----------------------------------------------------------------------------------------------------------


def test_info_refuses_the_same_way(genrecon: Any, raw: Path) -> None:
    os.truncate(raw, 5000)
    code, stdout, stderr = genrecon("info", raw)
    assert (code, stdout) == (1, "")
    assert "scan.h5: the file is truncated" in the_line(stderr)


def test_the_installed_command(tmp_path: Path) -> None:
    """The real command line in a process of its own: one line, exit code 1, and nothing is left."""
    done = run_command("replay", tmp_path / "nothing.h5", "-o", tmp_path / "a" / "b")
    assert (done.returncode, done.stdout) == (1, "")
    assert f"{tmp_path}/nothing.h5: no such file" in the_line(done.stderr)
    assert tree(tmp_path) == {}


def test_lines_read_backwards_are_refused(refused: Any, raw: Path) -> None:
    with h5py.File(raw, "r+") as file:
        rows = file["dataset/data"][:]
        rows["head"]["flags"][9] |= np.uint64(1) << np.uint64(ismrmrd.ACQ_IS_REVERSE - 1)
        file["dataset/data"][:] = rows
    assert "acquisition 9 is read backwards; scans with reversed lines (EPI) cannot be reconstructed" in refused(raw)


def test_dicom_folder_of_a_replay_is_its_output_folder(refused: Any, raw: Path) -> None:
    line = refused(raw, "--set", "dicom_output.folder=/tmp/elsewhere")
    assert "a replay writes its DICOM below its output folder; choose that with --out" in line

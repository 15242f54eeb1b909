"""The command line as a user meets it."""

from __future__ import annotations

import re
import subprocess
import sys

import h5py
import numpy as np
import pydicom
import pytest
import sigpy
from PIL import Image
from typer.testing import CliRunner

from gadgets.errors import ReconError
from pipelines.chain import shipped_chains
from pipelines.cli import app

SMALL = ["--matrix", "48,48", "--coils", "4", "--calibration-lines", "16"]


def run(*arguments):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    path = tmp_path_factory.mktemp("raw") / "scan.h5"
    run("simulate", path, *SMALL, "--slices", "3")
    return path


def test_replay_leaves_images_montage_and_dicom(raw, tmp_path):
    output = run("replay", raw, "-c", "cg_sense", "-o", tmp_path / "out")
    assert "3 images, 3 DICOM files" in output
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "dicom",
        "images.h5",
        "replay.json",
        "series_001.png",
    ]
    with h5py.File(tmp_path / "out" / "images.h5") as file:
        assert file["images/image_1/data"].shape == (3, 1, 1, 48, 48)
    with Image.open(tmp_path / "out" / "series_001.png") as montage:
        assert montage.size == (96, 96)  # 3 tiles in a 2 x 2 sheet
    files = sorted((tmp_path / "out" / "dicom").rglob("*.dcm"))
    assert [pydicom.dcmread(path).InstanceNumber for path in files] == [1, 2, 3]
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]


def test_replay_again_replaces_the_results(raw, tmp_path):
    for _ in range(2):
        run("replay", raw, "-c", "cg_sense", "-o", tmp_path / "out")
    with h5py.File(tmp_path / "out" / "images.h5") as file:
        assert len(file["images/image_1/data"]) == 3
    assert len(list((tmp_path / "out" / "dicom").rglob("*.dcm"))) == 3


def test_images_of_an_earlier_replay_in_the_folder_are_told_of(raw, tmp_path):
    assert "earlier replay" not in run("replay", raw, "-c", "cg_sense", "-o", tmp_path / "out")
    (tmp_path / "out" / "notes.png").touch()  # not of a replay
    assert "earlier replay" not in run("replay", raw, "-c", "cg_sense", "-o", tmp_path / "out")
    output = run("replay", raw, "-o", tmp_path / "out", "--set", "generative_recon.method=zero_filled")
    assert "holds 3 image files of an earlier replay beside the new ones" in " ".join(output.split())
    assert len(list((tmp_path / "out" / "dicom").rglob("*.dcm"))) == 6


def test_several_files_get_a_folder_each(raw, tmp_path):
    other = tmp_path / "other.h5"
    other.write_bytes(raw.read_bytes())
    run("replay", raw, other, "-c", "cg_sense", "-o", tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["other", "scan"]


def test_set_reaches_members_and_gadgets(raw, tmp_path):
    settings = [
        "generative_recon.method=cg_sense",
        "FloatToUShortGadget.max_intensity=100",
        "dicom_output.anonymize=true",
    ]
    run("replay", raw, "-c", "l1_wavelet", "-o", tmp_path / "out", *(part for s in settings for part in ("--set", s)))
    with h5py.File(tmp_path / "out" / "images.h5") as file:
        assert file["images/image_1/data"][:].max() == 100
        assert "cg_sense" in file["images/image_1/attributes"][0].decode()
    ds = pydicom.dcmread(next((tmp_path / "out" / "dicom").rglob("*.dcm")))
    assert ds.PatientIdentityRemoved == "YES"
    assert "Phantom" not in str(ds.PatientName)


def test_config_file_is_read(raw, tmp_path):
    from importlib import resources

    text = (resources.files("xml_configs") / "cg_sense.xml").read_text()
    edited = tmp_path / "edited.xml"
    edited.write_text(text.replace('name="espirit.map_sets" value="2"', 'name="espirit.map_sets" value="1"'))
    run("replay", raw, "-c", edited, "-o", tmp_path / "out")
    with h5py.File(tmp_path / "out" / "images.h5") as file:
        assert "map_sets=1" in file["images/image_1/attributes"][0].decode()


def test_info_names_the_sampling_but_no_patient(raw):
    output = run("info", raw)
    assert "48 x 48 x 1" in output
    assert "SIEMENS" in output
    assert "embedded" in output
    assert "Phantom" not in output
    assert "SIM-0001" not in output


def test_chains_lists_all_of_them():
    output = run("chains")
    expected = {"cg_sense", "generative", "hkgm", "l1_wavelet", "l1_wavelet_separate", "svd_wkgm", "wkgm"}
    assert {*expected, "l1_wavelet_connect", "svd_wkgm_connect"} == set(shipped_chains())
    assert all(name in output for name in shipped_chains())


def test_simulate_takes_given_images(tmp_path):
    image = np.zeros((1, 48, 48), dtype=np.float32)
    image[0, 20:30, 10:40] = 1
    np.save(tmp_path / "object.npy", image)
    path = tmp_path / "scan.h5"
    run(
        "simulate",
        path,
        *SMALL,
        "--sampling",
        "full",
        "-R",
        "1",
        "--noise",
        "0",
        "--no-noise-scan",
        "--images",
        tmp_path / "object.npy",
    )
    with h5py.File(path) as file:
        truth = file["dataset/truth"][0, 0]
    inside, outside = truth[22:28, 12:38], truth[:15]
    assert inside.min() > 20 * outside.max()


@pytest.mark.slow
def test_demo_prints_how_good(tmp_path):
    output = run("demo", "-o", tmp_path / "demo", "-c", "cg_sense", "-c", "l1_wavelet")
    number = r"\s+(\d+\.\d+) │"
    rows = re.findall(r"│ (\w+)\s+│" + 5 * number, output)
    assert [name for name, *_ in rows] == ["cg_sense", "l1_wavelet"]
    classical, sparse = ([float(text) for text in values] for _, *values in rows)
    assert sparse[0] > classical[0] + 2 > 40 and sparse[1] > 0.97
    assert sparse[2] > classical[2] + 2 > 39 and sparse[3] > 0.98
    assert (tmp_path / "demo" / "raw.h5").is_file()
    assert (tmp_path / "demo" / "l1_wavelet" / "series_001.png").is_file()
    page = (tmp_path / "demo" / "report.html").read_text()
    assert "<title>Demo: three slices of a brain" in page and page.count("data:image/png") > 20


@pytest.mark.parametrize(
    "command",
    [
        "replay",
        "simulate",
        "info",
        "chains",
        "demo",
        "listen",
        "benchmark",
        "stability",
        "report",
        "train",
        "train wkgm",
    ],
)
def test_every_command_has_help(command):
    assert "Usage" in run(*command.split(), "--help")


def test_the_command_line_loads_nothing_slow():
    """So that --help answers at once."""
    code = "import sys, pipelines.cli; print(*{'torch', 'numpy', 'gadgetron', 'matplotlib'} & sys.modules.keys())"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "\n"


@pytest.mark.slow
def test_benchmark_and_report(tmp_path):
    phantom = np.abs(sigpy.shepp_logan((48, 48))).astype(np.complex64)
    np.save(tmp_path / "phantom.npy", np.stack([phantom, phantom.T]))
    command = ["benchmark", tmp_path / "phantom.npy", "--coils", "4", "--slices", "1", "--pattern", "poisson:2"]
    command += ["-m", "cg_sense", "-m", "l1_wavelet:iterations=5", "-m", "sake:rank=9999", "-o", tmp_path / "out"]
    output = run(*command, "--metrics", "psnr,hfen_object")
    assert (
        re.search(r"l1_wavelet iterations=5\s+│ \d\d\.\d\d / 0\.\d{4}", output) and "rank 9999 is not from 1" in output
    )
    assert str(tmp_path / "out" / "report.html") in output
    first = (tmp_path / "out" / "report.html").read_text()
    assert run("report", tmp_path / "out").strip() == str(tmp_path / "out" / "report.html")
    assert first == (tmp_path / "out" / "report.html").read_text()
    assert "l1_wavelet iterations=5" in (tmp_path / "out" / "report.html").read_text()


def test_report_of_a_replay(raw, tmp_path):
    run("replay", raw, "-c", "cg_sense", "-o", tmp_path / "out")
    run("report", tmp_path / "out", "-o", tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    assert "cg_sense" in text and "espirit" in text and "acquisitions" in text
    assert "Simulated" not in text or "patient" not in text.lower()


def test_simulate_scans_the_brain(tmp_path):
    run("simulate", tmp_path / "brain.h5", "--brain", *SMALL, "--slices", "2")
    run("simulate", tmp_path / "phantom.h5", *SMALL, "--slices", "2")
    truths = []
    for name in ("brain.h5", "phantom.h5"):
        with h5py.File(tmp_path / name) as file:
            truths.append(file["dataset/truth"][0])
    assert truths[0].shape == (2, 48, 48) and not np.allclose(*truths, rtol=0.1)
    with pytest.raises(ReconError, match="1 to 5 slices"):
        run("simulate", tmp_path / "six.h5", "--brain", *SMALL, "--slices", "6")
    with pytest.raises(ReconError, match="give one of them"):
        run("simulate", tmp_path / "both.h5", "--brain", "--images", "object.npy", *SMALL)


def test_simulate_replaces_simulated_scans_alone(tmp_path):
    path = tmp_path / "scan.h5"
    for _ in range(2):
        run("simulate", path, *SMALL)
    for content in (b"the user's own", None):
        if content:
            path.write_bytes(content)
        else:
            with h5py.File(path, "w") as file:
                file["dataset/data"] = [1]
        before = path.read_bytes()
        with pytest.raises(ReconError, match="is there already, and is no simulated scan"):
            run("simulate", path, *SMALL)
        assert path.read_bytes() == before
    run("simulate", path, "--force", *SMALL)
    run("info", path)


def test_full_sampling_needs_no_acceleration(tmp_path):
    run("simulate", tmp_path / "full.h5", *SMALL, "--sampling", "full")
    with h5py.File(tmp_path / "full.h5") as file:
        lines = sum(not head["flags"] & (1 << 18) for head in file["dataset/data"]["head"])  # but noise
    assert lines == 48
    with pytest.raises(ReconError, match="must be 1"):
        run("simulate", tmp_path / "full.h5", *SMALL, "--sampling", "full", "-R", "2")


@pytest.mark.parametrize(
    ("arguments", "near"),
    [
        (["-c", "cgsense"], "did you mean 'cg_sense'?"),
        (["--set", "generativ_recon.samples=2"], "did you mean 'generative_recon'"),
        (["--set", "generative_recon.iteration=2"], "did you mean 'iterations'"),
        (["--set", "generative_recon.method=grapa"], "grappa"),
    ],
)
def test_names_near_a_wrong_one_are_told(raw, tmp_path, arguments, near):
    with pytest.raises(ReconError) as caught:
        run("replay", raw, "-o", tmp_path / "out", *arguments)
    assert near in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("columns", "width"), [(None, "160"), ("100", "100")])
def test_tables_in_a_pipe_are_wide_enough_for_their_figures(columns, width, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    if columns is not None:
        monkeypatch.setenv("COLUMNS", columns)
    code = "from pipelines.cli.console import console; print(console.width)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == width

"""The documentation's example of a prior outside the package, through the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gadgets.stream import ReconError
from pipelines.cli import app
from pipelines.simulation import SimulationSettings, simulate, write_raw
from tests.paths import ROOT

EXAMPLE = ROOT / "docs" / "examples" / "smoothing_prior.py"


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scan") / "scan.h5"
    write_raw(
        path,
        simulate(
            SimulationSettings(
                matrix=(48, 48, 1), coils=4, sampling="uniform", acceleration=2.0, noise_level=0.01, noise_scan=True
            )
        ),
    )
    return path


def replay(scan: Path, out: Path, *settings: str) -> BaseException | None:
    arguments = ["replay", str(scan), "-c", "svd_wkgm", "-o", str(out)]
    for setting in settings:
        arguments += ["--set", f"generative_recon.{setting}"]
    return CliRunner().invoke(app, arguments).exception


def test_the_page_shows_the_example_that_runs() -> None:
    assert EXAMPLE.read_text().rstrip() in (ROOT / "docs" / "add_a_prior.md").read_text()
    assert len(EXAMPLE.read_text().splitlines()) <= 30


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["auto", "annealed", "momentum", "proximal"])
def test_the_example_reconstructs_through_replay(sampler: str, scan: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    settings = ("method=custom", f"prior={EXAMPLE}:SmoothingPrior", f"sampler={sampler}", "steps=8")
    assert replay(scan, out, *settings) is None
    assert list((out / "dicom").rglob("*.dcm"))
    assert not json.loads((out / "replay.json").read_text())["warnings"]


def test_errors_are_one_line(scan: Path, tmp_path: Path) -> None:
    for settings, text in (
        (["method=custom"], "it needs a prior"),
        (["method=custom", f"prior={EXAMPLE}:Nothing"], "has no 'Nothing'"),
        (["method=wkgm", f"prior={EXAMPLE}:SmoothingPrior"], "method custom takes"),
    ):
        error = replay(scan, tmp_path / "out", *settings)
        assert isinstance(error, ReconError) and text in str(error) and "\n" not in str(error)
    assert not (tmp_path / "out").exists()

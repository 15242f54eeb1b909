"""A scan without calibration uses that of a reference scan: of a file, or of an earlier measurement of a server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from gadgets.images import REFERENCE, REFERENCE_NAME, meta_of, meta_values
from gadgets.stream import ReconError
from pipelines.replay import read_images, replay
from pipelines.send import send
from pipelines.server.overview import overview
from tests import raw_files
from tests.noise_scans import DATA, NAMES, NOISE, header
from tests.pipelines.server.serving import address, serving
from tests.pipelines.server.test_kept_raw import assert_same_images, latest

ID = "1_2_3_7"
# Noise that mixes the coils, but leaves them different enough to tell apart what folds.
MIXING = (np.eye(4) + 0.3 * raw_files.noise((4, 4), seed=5)) * np.abs(DATA).max() * 2e-4


def noise_lines() -> list[Any]:
    """Noise readouts of the scan, three minutes before it."""
    fields = {"flags": [NOISE], "acquisition_time_stamp": 14_472_000}
    return [raw_files.line(MIXING @ raw_files.noise(seed=seed), 0, **fields) for seed in range(8)]


ACCELERATED = range(0, 64, 2)
OTHER = (256.0, 200.0)  # field of view of the reference in mm


def depending(text: str, kind: str = "SenMap") -> str:
    """A header that names the reference."""
    dependency = (
        f"<measurementDependency><dependencyType>{kind}</dependencyType><measurementID>{ID}</measurementID>"
        "</measurementDependency>"
    )
    return text.replace("</measurementInformation>", f"{dependency}</measurementInformation>")


def reference_header(names: Any = NAMES) -> str:
    return header(
        names,
        measurement_id=ID,
        encoded=(64, 40, 1),
        encoded_extent=(*OTHER, 5),
        recon=(64, 40, 1),
        recon_extent=(*OTHER, 5),
        limits={"kspace_encoding_step_1": (0, 39, 20)},
    )


def reference_lines(order: Any = range(4)) -> list[Any]:
    data = raw_files.kspace(samples=(64, 40), extent=OTHER)
    noise = (MIXING @ raw_files.noise((4, 40 * 64), seed=7)).reshape(data.shape)
    return raw_files.lines((data + noise)[list(order)], acquisition_time_stamp=14_496_000)  # two minutes before


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("reference")
    noise = (MIXING @ raw_files.noise((4, 64 * 128), seed=99)).reshape(4, 64, 128)
    fast = raw_files.lines(DATA + noise, ACCELERATED, acquisition_time_stamp=14_544_000)
    whole = raw_files.lines(DATA + noise, acquisition_time_stamp=14_544_000)
    parallel = (
        "<parallelImaging><accelerationFactor><kspace_encoding_step_1>2</kspace_encoding_step_1>"
        "<kspace_encoding_step_2>1</kspace_encoding_step_2></accelerationFactor></parallelImaging>"
    )
    raw_files.write(path / "scan.h5", (depending(header(in_encoding=parallel)), [*noise_lines(), *fast]))
    raw_files.write(path / "whole.h5", (depending(header()), [*noise_lines(), *whole]))
    raw_files.write(path / "reference.h5", (reference_header(), reference_lines()))
    order = [2, 0, 3, 1]
    names = [NAMES[place] for place in order]
    raw_files.write(path / "shuffled.h5", (reference_header(names), reference_lines(order)))
    raw_files.write(path / "other.h5", (reference_header(["A", "B", "C", "D"]), reference_lines()))
    return path


def image(folder: Path) -> Any:
    (found,) = read_images(folder, 1)
    return found


def error(found: Any, wanted: Any) -> float:
    """Relative difference of two images, but for a factor."""
    a, b = (np.abs(one.data.astype(float)).ravel() for one in (found, wanted))
    return float(np.linalg.norm(a * (a @ b) / (a @ a) - b) / np.linalg.norm(b))


def test_replay(folder: Path, tmp_path: Path) -> None:
    replay(folder / "whole.h5", "cg_sense", tmp_path / "whole")
    without = replay(folder / "scan.h5", "cg_sense", tmp_path / "without")
    assert any("no calibration lines were found" in text for text in without.warnings)
    assert any("names a reference scan" in text and "--reference" in text for text in without.warnings)
    assert any("missing at regular intervals" in text for text in without.warnings)
    given = replay(folder / "scan.h5", "cg_sense", tmp_path / "with", reference=str(folder / "reference.h5"))
    assert not any("calibration" in text or "names a reference" in text for text in given.warnings)
    wanted = image(tmp_path / "whole")
    assert error(image(tmp_path / "with"), wanted) < 0.06
    assert error(image(tmp_path / "with"), wanted) < error(image(tmp_path / "without"), wanted)
    meta = meta_of(image(tmp_path / "with").attribute_string)
    assert meta_values(meta, REFERENCE) == ["another file, 2 min older"]
    assert meta_values(meta, REFERENCE_NAME) == [f"reference.h5, measurement {ID}"]
    (file,) = (tmp_path / "with" / "dicom").rglob("*.dcm")
    derivation = pydicom.dcmread(file).DerivationDescription
    assert derivation.endswith(f"; calibration: another file, 2 min older, reference.h5, measurement {ID}")
    replay(folder / "scan.h5", "cg_sense", tmp_path / "shuffled", reference=str(folder / "shuffled.h5"))
    assert error(image(tmp_path / "shuffled"), image(tmp_path / "with")) < 1e-3


def test_a_scan_with_calibration_keeps_its_own(folder: Path, tmp_path: Path) -> None:
    replay(folder / "whole.h5", "cg_sense", tmp_path / "alone")
    replay(folder / "whole.h5", "cg_sense", tmp_path / "beside", reference=str(folder / "reference.h5"))
    assert np.array_equal(image(tmp_path / "alone").data, image(tmp_path / "beside").data)
    meta = meta_of(image(tmp_path / "beside").attribute_string)
    assert meta_values(meta, REFERENCE) == ["own calibration lines"]


def test_what_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ReconError, match="its coils are not those of"):
        replay(folder / "scan.h5", "cg_sense", tmp_path / "a", reference=str(folder / "other.h5"))
    with pytest.raises(ReconError, match="it has no fully sampled centre of k-space"):
        replay(folder / "scan.h5", "cg_sense", tmp_path / "b", reference=str(folder / "scan.h5"))
    far = reference_lines()
    for line in far:
        line.position[:] = (0, 0, 300)
    raw_files.write(tmp_path / "far.h5", (reference_header(), far))
    result = replay(folder / "scan.h5", "cg_sense", tmp_path / "c", reference=str(tmp_path / "far.h5"))
    assert any("it does not lie where the scan does; measure one that covers the scan" in t for t in result.warnings)
    assert any("no calibration lines were found" in text for text in result.warnings)


@pytest.mark.slow
def test_a_server_keeps_it_for_the_scans_that_name_it(folder: Path, tmp_path: Path) -> None:
    with serving(keep_raw=tmp_path / "kept") as server:
        before = send(folder / "scan.h5", "cg_sense", address(server), timeout=60)
        assert any("names a reference scan for coil maps, which was not sent" in text for text in before.texts)
        send(folder / "reference.h5", "cg_sense", address(server), timeout=60)
        after = send(folder / "scan.h5", "cg_sense", address(server), out=tmp_path / "sent", timeout=60)
        assert not any("reference" in text for text in after.texts)
        kept = latest(server)
        shown = overview(server, None)
    assert shown["ended"][0]["facts"]["reference scan"] == "another measurement, 2 min older"
    (reference,) = shown["kept"]["references"]
    assert (reference["measurement"], reference["coils"], reference["blocks"]) == ("7", 4, 1)
    meta = meta_of(image(tmp_path / "sent").attribute_string)
    assert meta_values(meta, REFERENCE) == ["another measurement, 2 min older"]
    replay(folder / "scan.h5", "cg_sense", tmp_path / "file", reference=str(folder / "reference.h5"))
    assert error(image(tmp_path / "sent"), image(tmp_path / "file")) < 1e-3
    replay(kept.raw, "", tmp_path / "again", as_served=True)
    assert_same_images([image(tmp_path / "again")], [image(tmp_path / "sent")])

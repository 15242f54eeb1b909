"""Acquisitions that are missing, unreadable, or disagree with the header."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from pipelines.simulation import simulate, write_raw
from tests.pipelines.bad_input.helpers import (
    CALIBRATION,
    LAST_IN_SLICE,
    LINE,
    NOISE,
    SMALL,
    change_header,
    change_rows,
    flagged,
    set_head,
)


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


@pytest.mark.slow
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("index", [0, 1, -1], ids=["noise", "first", "last"])
def test_samples_that_are_no_numbers(refused: Any, raw: Path, value: float, index: int) -> None:
    def spoil(rows: Any) -> None:
        rows[index]["data"][7] = value

    change_rows(raw, spoil)
    with h5py.File(raw) as file:
        number = index % len(file["dataset/data"])
    assert f"{raw}: acquisition {number} has NaN or infinite samples; correct or leave out" in refused(raw)


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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "text"),
    [
        (cut_samples, "holds 254.5 samples, its header says 4 coils x 64"),
        (set_head("active_channels", 5), "holds 256 samples, its header says 5 coils x 64"),
        (set_head("number_of_samples", 63), "holds 256 samples, its header says 4 coils x 63"),
        (no_samples, "holds 0 samples, its header says 4 coils x 0"),
        (fewer_coils, "has 3 coils, the lines before it 4"),
        (stray_trajectory, "holds 7 trajectory values, its header says 64 x 0"),
        (set_head("encoding_space_ref", 3), "refers to encoding 3, the header has 1"),
    ],
)
def test_acquisition_that_disagrees_with_the_header(
    refused: Any, raw: Path, change: Callable[[Any], None], text: str
) -> None:
    change_rows(raw, change)
    assert f"{raw}: acquisition {LINE} {text}" in refused(raw)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (shorter_readout, "acquisition 10 has 60 samples, the header's encoded matrix is 64; header and data"),
        (
            set_counter("kspace_encode_step_1", 30000),
            "has 32 lines along kspace_encode_step_1, but 1 of those",
        ),
    ],
)
def test_line_that_does_not_fit_the_others(refused: Any, raw: Path, change: Callable[[Any], None], text: str) -> None:
    change_rows(raw, change)
    assert text in refused(raw)


def test_coil_counts_that_change_when_the_header_gives_none(refused: Any, raw: Path) -> None:
    change_header(raw, {"acquisitionSystemInformation.receiverChannels": None})
    change_rows(raw, fewer_coils)
    assert f"acquisition {LINE} has 3 coils, the lines before it 4" in refused(raw)


def test_noise_lines_that_disagree_are_left_out(genrecon: Any, raw: Path, tmp_path: Path) -> None:
    def fewer_coils_in_the_second(rows: Any) -> None:
        rows[1]["data"] = rows[1]["data"][: 2 * 3 * rows["head"]["number_of_samples"][1]]
        rows["head"]["active_channels"][1] = 3

    change_rows(raw, fewer_coils_in_the_second)
    code, stdout, stderr = genrecon("replay", raw, "-c", "cg_sense", "-o", tmp_path / "out")
    assert code == 0, stderr
    assert "1 of 7 noise lines have other coils or another dwell time; they are left out" in stdout
    assert "noise: own scan" in stdout


def test_trajectory_announced_but_empty_is_left_alone(genrecon: Any, raw: Path, tmp_path: Path) -> None:
    """A Cartesian scan needs none."""

    def announce(rows: Any) -> None:
        rows["head"]["trajectory_dimensions"] = 2

    change_rows(raw, announce)
    code, stdout, stderr = genrecon("replay", raw, "-c", "cg_sense", "-o", tmp_path / "out")
    assert (code, stderr) == (0, "")
    assert "2 images" in stdout


def test_scan_of_noise_only(genrecon: Any, raw: Path, tmp_path: Path) -> None:
    change_rows(raw, lambda rows: rows[flagged(rows, NOISE)])
    code, stdout, stderr = genrecon("replay", raw, "-c", "cg_sense", "-o", tmp_path / "out")
    assert code == 0, stderr
    assert "a noise measurement of 4 coils: it has no image; give it to other scans with --noise" in stdout
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["replay.json"]


def test_scan_of_calibration_lines_only(refused: Any, tmp_path: Path) -> None:
    raw = tmp_path / "scan.h5"
    write_raw(raw, simulate(replace(SMALL, slices=1, calibration="separate")))
    change_rows(raw, lambda rows: rows[flagged(rows, CALIBRATION)])
    assert f"{raw}: none of its 12 acquisitions is an imaging line" in refused(raw)


def test_line_of_a_slice_that_was_complete(genrecon: Any, raw: Path, tmp_path: Path) -> None:
    def repeat(rows: Any) -> Any:
        first_slice = rows["head"]["idx"]["slice"] == rows["head"]["idx"]["slice"][flagged(rows, LAST_IN_SLICE)][0]
        late = rows[first_slice & ~flagged(rows, NOISE)][:1]
        return np.concatenate([rows, late])

    change_rows(raw, repeat)
    code, stdout, _ = genrecon("replay", raw, "-c", "cg_sense", "-o", tmp_path / "out")
    assert code == 0
    assert "1 lines came more than once for one place" in stdout
    assert "2 images" in stdout

"""What a header announces, and lines as they come."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gadgets.acquisition_flags import is_for_images
from pipelines.chain import shipped_chain
from pipelines.raw import RawScan
from pipelines.server.progress import LineCounter, announced_images, announced_lines, method_of
from pipelines.simulation import SimulationSettings, simulate, write_raw

SCANS: list[dict[str, Any]] = [
    {"sampling": "full"},
    {"sampling": "uniform", "acceleration": 2, "calibration_lines": 12},
    {"sampling": "uniform", "acceleration": 3, "calibration_lines": 12, "slices": 2, "repetitions": 2, "contrasts": 2},
    {"sampling": "uniform", "acceleration": 2, "calibration_lines": 12, "calibration": "separate", "averages": 2},
    {
        "sampling": "uniform",
        "acceleration": 2,
        "calibration_lines": 12,
        "noise_scan": True,
        "noise_level": 0.01,
        "partial_fourier": 0.75,
    },
]


@pytest.mark.parametrize("changes", SCANS)
def test_announced(tmp_path: Path, changes: dict[str, Any]) -> None:
    write_raw(tmp_path / "a.h5", simulate(SimulationSettings(matrix=(48, 48, 1), coils=2, **changes)))
    with RawScan(tmp_path / "a.h5") as scan:
        came = sum(is_for_images(line) for line in scan.acquisitions())
        # Its header does not tell how many lines a separate calibration has.
        least = 0.75 if changes.get("calibration") == "separate" else 0.95
        assert least * came <= announced_lines(scan.header) <= 1.1 * came
        chain = shipped_chain("cg_sense")
        images = changes.get("slices", 1) * changes.get("repetitions", 1) * changes.get("contrasts", 1)
        assert announced_images(scan.header, chain) == images
        chain.set("generative_recon", "output", "magnitude,phase")
        assert announced_images(scan.header, chain) == 2 * images
        chain.set("generative_recon", "samples", "3")
        assert announced_images(scan.header, chain) == 3 * images
        scan.header.encoding[0].encodingLimits.kspace_encoding_step_1 = None
        assert announced_lines(scan.header) == 0


def test_method_and_budget_of_a_chain() -> None:
    chain = shipped_chain("svd_wkgm")
    assert method_of(chain, 100.0)[0] in chain.to_xml().decode()
    chain.set("generative_recon", "time_budget_s", "20")
    assert method_of(chain, 100.0)[1] == 20
    assert method_of(chain, 20.0)[1] == 0  # that of the server
    for node in chain.nodes:
        node.properties.clear()
    assert method_of(chain, 100.0) == ("", 0.0)


def test_lines_are_reported_though_no_more_come(raw: Path) -> None:
    reports: list[Any] = []
    with RawScan(raw) as scan:
        lines = list(scan.acquisitions())
    counter = LineCounter(lambda event, value: reports.append((event, value)))
    items = counter.count(iter(lines))
    for _ in range(5):
        next(items)
    deadline = 200
    while not reports and deadline:
        counter._stopped.wait(0.05)
        deadline -= 1
    assert reports == [("received", (5, False))]
    list(items)
    counter.stop()
    assert reports[-1] == ("received", (len(lines), True))

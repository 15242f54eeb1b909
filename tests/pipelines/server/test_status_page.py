"""The status page as HTML, and in headless Chromium on a server whose scans run, wait, end and fail."""

from __future__ import annotations

import itertools
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.server.listener import Server
from pipelines.server.overview import overview
from pipelines.server.settings import Limits
from pipelines.server.status import StatusServer
from pipelines.server.status_page import duration, status_page
from tests.browser import Browser, browser, missing
from tests.pipelines.server.serving import (
    CLOSE,
    connected,
    exchanged,
    fetched,
    named,
    serving,
    stream,
    until,
    works,
)

HOSTILE = "<script>alert(1)</script>&\"'"

# Texts whose contrast with what lies behind them is below 4.5 (WCAG 2.2, 1.4.3).
FAINT_TEXTS = """
const light = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
const luminance = (colour) => {
  const [r, g, b] = colour.match(/[\\d.]+/g).map((v) => light(Number(v) / 255));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const behind = (node) => {
  for (; node; node = node.parentElement) {
    const colour = getComputedStyle(node).backgroundColor;
    if (!colour.endsWith(", 0)")) return colour;
  }
  return "rgb(255, 255, 255)";
};
const isFaint = (node) => {
  const both = [getComputedStyle(node).color, behind(node)].map(luminance);
  return (Math.max(...both) + 0.05) / (Math.min(...both) + 0.05) < 4.5;
};
const hasText = (node) => [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim());
const shown = [...document.querySelectorAll("body *")].filter((node) => node.checkVisibility() && hasText(node));
return [shown.length, shown.filter(isFaint).map((node) => node.outerHTML)];
"""


def scan(number: int, state: str, **changes: Any) -> dict[str, Any]:
    return {
        "number": number, "state": state, "chain": "cg_sense", "method": "cg_sense", "arrived": 0.0, "elapsed_s": 75,
        "seconds_left": None, "place": 0, "starts_in_s": None, "lines": 10, "announced_lines": 40, "complete": False,
        "images": 0, "announced_images": 4, "first_image_s": None, "facts": {}, "warnings": [], "error": "",
        "thumbnails": [], "raw_kept": False,
    } | changes  # fmt: skip


def page(**changes: Any) -> str:
    totals = {"scans": 3, "failed": 1, "refused": 0, "images": 9, "replaced": 0}
    empty: dict[str, Any] = {"state": "ok", "time": 0.0, "uptime_s": 7200.0, "scans_at_a_time": 1, "totals": totals}
    empty["kept"] = {"noise": [], "references": []}
    return " ".join(
        status_page({**empty, "running": [], "late": [], "waiting": [], "ended": [], "pacs": [], **changes}).split()
    )


def test_a_running_scan() -> None:
    found = page(running=[scan(7, "runs", seconds_left=65.0, images=1, warnings=["a doubt"], facts={"noise": "own"})])
    for text in ("runs a scan", "Scan 7", "About 1 min 5 s left", "10 of 40 lines", "1 of 4 images", "a doubt"):
        assert text in found
    assert "<dt>Noise</dt><dd>own</dd>" in found and 'value="10" max="40"' in found
    found = page(running=[scan(7, "runs", lines=50, images=5, complete=True)])
    assert "all 50 lines" in found and "5 images" in found and "5 of" not in found and "Time left not known" in found


def test_a_late_scan() -> None:
    found = page(late=[scan(5, "late", images=1, seconds_left=30.0)])
    for text in ("is ready, late images are made", "Late images, in the background", "Scan 5", "About 30 s left"):
        assert text in found
    assert ">Running<" not in found


def test_waiting_scans_failed_ones_and_the_pacs() -> None:
    queue = {"pacs": "dicom://A@b:104", "waiting": 2, "failed": 0, "text": "2 files wait"}
    waiting = [scan(8, "waits", place=1, starts_in_s=30), scan(9, "waits", place=2, chain="")]
    found = page(waiting=waiting, ended=[scan(6, "failed", error="no lines came")], pacs=[queue])
    for text in ("Place 1.", "Starts in about 30 s", "Place 2.", "Start not known", "chain not known yet"):
        assert text in found
    assert "raw data kept" not in found and "raw data kept" in page(ended=[scan(6, "done", raw_kept=True)])
    assert 'class="bad">failed</strong>: no lines came' in found and "dicom://A@b:104</strong>: 2 files wait" in found


def test_kept_noise_and_reference_scans() -> None:
    assert "Kept for later scans" not in page()
    noise = [{"measurement": str(number), "coils": 8, "age_s": 60 * number} for number in range(1, 6)]
    volume = {"measurement": "", "coils": 16, "age_s": 7200, "blocks": 1, "volume": True}
    slices = {"measurement": "12", "coils": 16, "age_s": 30, "blocks": 20, "volume": False}
    found = page(kept={"noise": noise, "references": [slices, volume]})
    assert "<dt>5 noise scans</dt><dd>measurement 1, 8 coils, 1 min old; measurement 2, 8 coils, 2 min old;" in found
    assert "; 2 more" in found and "<dt>2 reference scans</dt>" in found
    assert "measurement 12, 20 slices, 16 coils, 30 s old; a measurement, a volume, 16 coils, 2 h old" in found


@pytest.mark.parametrize(("state", "text"), [("stopping", "is stopping"), ("not ready", "is not ready")])
def test_a_server_that_takes_no_scans(state: str, text: str) -> None:
    assert text in page(state=state)


def test_everything_is_escaped() -> None:
    texts = {"facts": {HOSTILE: HOSTILE}, "warnings": [HOSTILE], "error": HOSTILE, "chain": HOSTILE, "method": HOSTILE}
    picture = {"series": 1, "kind": HOSTILE, "path": f'/{HOSTILE}"onload="x'}
    queue = {"pacs": HOSTILE, "waiting": 0, "failed": 0, "text": HOSTILE}
    scans = [scan(1, state, thumbnails=[picture], **texts) for state in ("runs", "waits", "failed")]
    found = page(running=scans[:1], waiting=scans[1:2], ended=scans[2:], pacs=[queue])
    assert "<script>alert" not in found and '"onload' not in found and "&lt;script&gt;" in found


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.123, "0.12 s"), (1, "1.0 s"), (59.6, "1 min"), (65, "1 min 5 s"), (1830, "30 min"), (4800, "1 h 20 min")],
)  # fmt: skip
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if absent := missing():
        pytest.skip(f"{absent} not on the PATH: install chromium and chromium-driver to run this test")
    with browser(tmp_path_factory.mktemp("browser")) as one:
        yield one


@pytest.fixture(scope="module")
def busy(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, StatusServer, socket.socket]]:
    """A server with ended and failed scans, one that runs and one that waits, and the connection of the running one."""
    folder = tmp_path_factory.mktemp("spool")
    with serving(limits=Limits(idle_s=300.0, scan_s=600.0)) as server:
        status = StatusServer(server, 0, spool=folder)
        outputs = {"parameters": {"config": "cg_sense", "generative_recon.output": "magnitude,phase"}}
        works(server, raw)
        exchanged(server, stream(raw, parameters=json.dumps(outputs).encode()))
        exchanged(server, stream(raw, named("no_such")))
        with connected(server) as first, connected(server) as second:
            first.sendall(stream(raw)[: -len(CLOSE)])
            until(lambda: server.queue.running() == 1)
            second.sendall(stream(raw))
            until(lambda: server.queue.waiting() == 1)
            yield server, status, first
        status.close()


def test_json_while_scans_run(busy: tuple[Server, StatusServer, socket.socket]) -> None:
    server, status, _ = busy
    until(lambda: overview(server, None)["running"][0]["lines"] == 66)
    code, content = fetched(status.port, "/scans.json")
    found = json.loads(content)
    assert code == 200 and found["state"] == "ok"
    (running,), (waiting,) = found["running"], found["waiting"]
    assert running["lines"] == running["announced_lines"] == 66 and not running["complete"]
    assert waiting["place"] == 1 and waiting["chain"] == "cg_sense"
    failed, phase, plain = found["ended"]
    assert failed["state"] == "failed" and "no_such" in failed["error"]
    assert [one["kind"] for one in phase["thumbnails"]] == ["magnitude", "phase"]
    assert phase["images"] == phase["announced_images"] == 6 and plain["images"] == 3
    assert "coil maps explain" in plain["facts"]["calibration"] and "not prewhitened" in plain["warnings"][0]
    assert fetched(status.port, phase["thumbnails"][1]["path"])[1].startswith(b"\x89PNG")


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
def test_in_a_browser(
    busy: tuple[Server, StatusServer, socket.socket], window: Browser, width: int, scheme: str, tmp_path: Path
) -> None:
    _, status, _ = busy
    window.resize(width, 800)
    window.prefer(scheme)
    window.open(f"http://127.0.0.1:{status.port}/")
    assert not window.complaints()
    assert window.run("return document.documentElement.scrollWidth") <= width
    texts, faint = window.run(FAINT_TEXTS)
    assert texts > 10 and not faint
    assert window.run("return [...document.images].every((one) => one.complete && one.naturalWidth && one.alt)")
    levels = window.run("return [...document.querySelectorAll('h1, h2, h3')].map((one) => Number(one.nodeName[1]))")
    assert levels[0] == 1 and all(b <= a + 1 for a, b in itertools.pairwise(levels))
    window.screenshot(tmp_path / "page.png")
    assert (tmp_path / "page.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_the_page_refreshes_itself_without_flicker(raw: Path, window: Browser) -> None:
    with serving() as server:
        status = StatusServer(server, 0)
        works(server, raw)
        until(lambda: not server.queue.running())  # its card is that of an ended scan
        window.open(f"http://127.0.0.1:{status.port}/")
        window.run("window.old = document.images[0]; old.fetched = performance.getEntriesByName(old.src).length")
        works(server, raw)
        until(lambda: window.run("return document.querySelectorAll('article').length") == 2, 30)
        assert window.run("return document.querySelector('h3').innerText").startswith("Scan 2")
        same = "return [old.isConnected, performance.getEntriesByName(old.src).length === old.fetched]"
        assert window.run(same) == [True, True]
        assert not window.complaints()
        status.close()
        until(lambda: not window.run("return document.getElementById('silent').hidden"), 30)
        assert window.run("return document.getElementById('silent').innerText").startswith("No answer")


@pytest.mark.slow
def test_the_page_is_served_while_scans_run(busy: tuple[Server, StatusServer, socket.socket], raw: Path) -> None:
    server, status, first = busy
    assert fetched(status.port, "/")[0] == 200
    first.sendall(CLOSE)
    deadline, pages = time.monotonic() + 60, 0
    while server.queue.running() + server.queue.waiting() and time.monotonic() < deadline:
        pages += fetched(status.port, "/")[0] == 200
    assert pages and not server.queue.running()

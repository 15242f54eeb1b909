"""The report page: what it shows, what it never shows, and what happens when something is missing or hostile."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import ismrmrd
import numpy as np
import pytest
from PIL import Image

from gadgets.stream import ReconError
from pipelines.evaluation.report import report
from pipelines.evaluation.report.pictures import detailed_region

HOSTILE = '<script>alert("x")</script> & $\\frac'
SIZE = 48


def disc() -> np.ndarray:
    """A disc with fine stripes in its lower right part, maximum 1."""
    y, x = np.mgrid[-1 : 1 : SIZE * 1j, -1 : 1 : SIZE * 1j]
    image = 0.5 * (np.hypot(y, x) < 0.9)
    image[30:40:2, 26:36] = 1.0
    return image.astype(np.float32)


def row(case: str, method: str, **changes: Any) -> dict[str, Any]:
    numbers = dict.fromkeys(("psnr", "psnr_object"), 30.0) | dict.fromkeys(("ssim", "ssim_object"), 0.9)
    numbers |= dict.fromkeys(("nrmse", "hfen", "nrmse_object", "hfen_object"), 0.1)
    others = {
        "seconds": 2.5,
        "memory_mb": 300.0,
        "evaluations": 25,
        "consistency": "sense",
        "warnings": [],
        "error": "",
    }
    return {"case": case, "method": method, **numbers, **others, "file": f"images/{case}_{method}.npz", **changes}


def write_results(folder: Path, rows: list[dict[str, Any]], machine: dict[str, Any] | None = None) -> None:
    names = sorted({entry["case"] for entry in rows})
    cases = [
        {"case": name, "data": "phantom", "slice": 3, "mask": "uniform", "acceleration": 4.0, "noise": 0.01,
         "matrix": [SIZE, SIZE], "coils": 2, "file": f"cases/{name}.npz"}
        for name in names
    ]  # fmt: skip
    results = {"version": "0.1.0", "created": "2024-05-01T12:00:00", "machine": machine or {"threads": 2}}
    (folder / "results.json").write_text(json.dumps({**results, "cases": cases, "rows": rows}))


@pytest.fixture
def benchmark(tmp_path: Path) -> Path:
    """Two cases, two methods: the second one is better in the first case and has an uncertainty map."""
    folder = tmp_path / "benchmark"
    rows = []
    for case in ("one", "two"):
        for part in ("cases", "images"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        maps = np.ones((2, SIZE, SIZE), np.complex64)
        np.savez(folder / f"cases/{case}.npz", reference=disc(), mask=np.eye(SIZE) > 0, maps=maps)
        np.savez(folder / f"images/{case}_plain.npz", image=0.9 * disc())
        np.savez(folder / f"images/{case}_better.npz", image=disc(), deviation=0.01 * disc())
        rows += [row(case, "plain"), row(case, "better", psnr=35.0 if case == "one" else 25.0, ssim=0.95, seconds=9.0)]
    write_results(folder, rows)
    return folder


def write_images(folder: Path, series: dict[int, tuple[str, list[np.ndarray]]]) -> None:
    """Series by number: method and images, float32 (z, y, x)."""
    with ismrmrd.Dataset(str(folder / "images.h5"), "images", mode="w") as dataset:
        for number, (method, images) in series.items():
            for array in images:
                image = ismrmrd.Image.from_array(array[None], transpose=False)
                image.image_series_index = number
                image.field_of_view[:] = (200, 100, 5)
                meta = {
                    "GenreconMethod": method,
                    "GenreconSettings": "prior=/home/doe/knee.safetensors steps=25",
                    "GenreconWarning": f"look out {HOSTILE}",
                    "PatientName": "DOE^JOHN",
                }
                image.attribute_string = ismrmrd.Meta(meta).serialize()
                dataset.append_image(f"image_{number}", image)


@pytest.fixture
def replayed(tmp_path: Path) -> Path:
    folder = tmp_path / "replayed"
    (folder / "dicom").mkdir(parents=True)
    (folder / "dicom" / "0001.dcm").write_bytes(b"DOE^JANE")
    flat = disc()[None]
    write_images(
        folder,
        {
            1: (f"svd_wkgm {HOSTILE}", [flat] * 3),
            2: ("cg_sense", [flat] * 50),
            3: ("cg_sense", [np.repeat(flat, 8, axis=0)]),
            101: ("svd_wkgm standard deviation", [0.1 * flat] * 3),
        },
    )
    timings = [
        {"name": "NoiseAdjustGadget", "busy": 0.25, "items_in": 9, "items_out": 8},
        {"name": HOSTILE, "busy": 4.0, "items_in": 8, "items_out": 1},
    ]
    text = {
        "raw": "/data/doe/scan.h5", "chain": "/home/doe/my.xml", "seconds": 5.0, "first_image_seconds": 2.0,
        "timings": timings, "warnings": [f"beware {HOSTILE}", "cannot read '/data/john doe/b1.npy'"],
        "header": {"scanner": HOSTILE, "coils": "16"},
    }  # fmt: skip
    (folder / "replay.json").write_text(json.dumps(text))
    return folder


class Page(HTMLParser):
    """A page's tags, images and text; that it is well formed is asserted."""

    EMPTY = frozenset({"meta", "img", "br"})

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(self.source)
        assert not self.open
        assert "http" not in self.source.replace("http-equiv", "")
        assert not {tag for tag, _ in self.tags} & {"script", "link", "iframe", "object", "base", "form"}
        for tag, attributes in self.tags:
            assert not [name for name in attributes if name.startswith("on")]
            assert tag == "img" or "src" not in attributes
            if tag == "img":
                assert attributes["alt"] and (attributes["src"] or "").startswith("data:image/png;base64,")
            if tag == "a":
                assert (attributes["href"] or "").removeprefix("#") in self.ids

    @property
    def ids(self) -> set[str | None]:
        return {attributes.get("id") for _, attributes in self.tags}

    @property
    def images(self) -> dict[str, np.ndarray]:
        found = [attributes for tag, attributes in self.tags if tag == "img"]
        return {
            str(image["alt"]): np.asarray(Image.open(io.BytesIO(base64.b64decode(str(image["src"]).split(",")[1]))))
            for image in found
        }

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text += f"{data} "


def test_benchmark(benchmark: Path) -> None:
    out = report(benchmark)
    page = Page(out)
    assert out == benchmark / "report.html"
    images = page.images
    assert {"reference", "plain, image", "plain, error", "plain, zoom", "better, deviation"} <= set(images)
    assert "plain, deviation" not in images
    for png in (benchmark / "report").glob("*.png"):
        assert np.asarray(Image.open(png)).dtype == np.uint8
    assert len(list((benchmark / "report").iterdir())) == page.source.count("<img ")
    # The window is the reference's (white 1), the error's a fifth of it.
    assert images["plain, image"].max() == round(0.9 * 255)
    assert images["plain, error"].max() == round(0.1 * 5 * 255)
    assert images["better, error"].max() == 0
    assert images["plain, zoom"].shape == (SIZE // 4, SIZE // 4)
    assert "sampled" in page.text and "2.1%" in page.text
    # Best of a case, and of the mean: 35 against 30, 30 against 25, mean 30 against 30.
    best = re.findall(r"<strong>([\d.]+)</strong>", page.source.split("</table>")[0])
    assert best.count("35.00") == 1 and best.count("30.00") == 3 and best.count("0.9500") == 3
    assert "25 " in page.text and "threads" in page.text


def test_many_cases_are_folded(benchmark: Path) -> None:
    rows = [row(f"case {number}", "plain", file="") for number in range(5)]
    write_results(benchmark, rows)
    details = [attributes for tag, attributes in Page(report(benchmark)).tags if tag == "details"]
    assert ["open" in attributes for attributes in details] == [True, False, False, False, False]


def test_what_is_missing_is_said(benchmark: Path) -> None:
    rows = [
        row("one", "plain"),
        row("one", "gone"),
        row("one", "broken", file="images/broken.npz"),
        row("one", "small", file="images/small.npz"),
        row("one", "outside", file="../../etc/images.npz"),
        row("one", "failed", psnr=None, ssim=None, seconds=None, error="it /home/doe/x.h5 diverged", file=""),
        row("two", "plain", warnings=["odd data"]),
        row("two", "failed", psnr=float("nan"), seconds=float("inf"), memory_mb=None, evaluations=None),
    ]
    write_results(benchmark, rows)
    (benchmark / "images" / "broken.npz").write_bytes((benchmark / "images" / "one_plain.npz").read_bytes()[:300])
    np.savez(benchmark / "images" / "small.npz", image=np.full((8, 9), np.nan, np.float32))
    (benchmark / "cases" / "two.npz").unlink()
    page = Page(report(benchmark))
    for text in (
        "one_gone.npz is missing", "broken.npz cannot be read", "the image is (8, 9), the reference (48, 48)",
        "images.npz lies outside of the folder", "failed: it x.h5 diverged", "two.npz is missing", "odd data",
        "1 of 8 reconstructions failed", "1 of 8 reconstructions have warnings", "two_failed.npz is missing",
    ):  # fmt: skip
        assert text in page.text
    assert "doe" not in page.source
    assert {"plain, image", "plain, error", "small, image"} <= set(page.images)


def test_hostile_text_stays_text(benchmark: Path) -> None:
    rows = [row("one", HOSTILE, warnings=[HOSTILE], consistency=HOSTILE), row("two", HOSTILE, error=HOSTILE)]
    write_results(benchmark, rows, {HOSTILE: HOSTILE, "very": "long" * 100})
    page = Page(report(benchmark))
    assert page.source.count("<script") == 0
    assert page.text.count(HOSTILE) >= 8
    for png in (benchmark / "report").iterdir():
        assert re.fullmatch(r"[\w.=-]+\.png", png.name)


def test_replay(replayed: Path) -> None:
    page = Page(report(replayed))
    images = page.images
    assert "<script" not in page.source and "doe" not in page.source.lower().replace("does", "")
    assert page.source.index("beware") < page.source.index("Series 1")  # warnings come first
    for text in ("scan.h5", "my.xml", "prior=knee.safetensors steps=25", "b1.npy", "cg_sense", "NoiseAdjustGadget"):
        assert text in page.text
    assert page.text.count("look out") == 1
    assert [sum(name.startswith(f"Series {number},") for name in images) for number in (1, 2, 3, 101)] == [3, 36, 4, 3]
    assert "Series 2, image 1" in images and "Series 2, image 50" in images
    assert [name for name in images if "partition" in name] == [
        f"Series 3, image 1, partition {number}" for number in (3, 4, 5, 6)
    ]
    assert images["Series 1, image 1"].max() == 255
    assert "10.0% of the images' white" in page.text
    with Image.open(replayed / "report" / "series_101_01.png") as image:
        assert image.mode == "P"  # through a colour map
    assert "--aspect: 2.0000" in page.source


def test_replay_without_timings_or_header(replayed: Path) -> None:
    (replayed / "replay.json").write_text('{"raw": "scan.h5", "timings": null}')
    assert "the chain ran on a server" in Page(report(replayed)).text


def test_out_and_a_second_report(benchmark: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "folder" / "page.html"
    assert report(benchmark, out) == out
    first = out.read_bytes()
    assert report(str(benchmark), str(out)) == out
    assert out.read_bytes() == first
    assert sorted(path.name for path in out.parent.iterdir()) == ["page", "page.html"]
    with pytest.raises(ReconError, match=r"ends with \.html"):
        report(benchmark, tmp_path / "page")


def test_a_failed_write_leaves_the_old_report(benchmark: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = report(benchmark)
    before = {path: path.read_bytes() for path in benchmark.rglob("*") if path.is_file()}
    write_results(benchmark, [row("one", "plain", psnr=12.0)])
    before[benchmark / "results.json"] = (benchmark / "results.json").read_bytes()

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        with pytest.raises(ReconError, match="cannot write there"):
            report(benchmark)
    assert {path: path.read_bytes() for path in benchmark.rglob("*") if path.is_file()} == before
    report(benchmark)
    assert out.read_bytes() != before[out]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("", "", "holds neither results.json nor replay.json; run `genrecon benchmark` or `genrecon replay`"),
        ("results.json", "{", "results.json: cannot be read as JSON"),
        ("results.json", "\xff", "results.json: cannot be read as JSON"),
        ("results.json", "[]", "the file is not an object"),
        ("results.json", '{"cases": []}', "rows of the file is missing"),
        ("results.json", '{"cases": [], "rows": []}', "it has no rows"),
        ("results.json", '{"cases": [], "rows": [3]}', "row 1 is not an object"),
        ("results.json", '{"cases": [], "rows": [{"case": "a", "method": "b"}]}', "case 'a' of its rows"),
        ("results.json", '{"cases": [], "rows": [{"case": "a", "method": "b", "psnr": "9"}]}', "psnr of row 1 is '9'"),
        ("replay.json", '{"raw": 5}', "raw of the file is 5; run `genrecon replay` into its folder again"),
        ("replay.json", '{"raw": "a.h5"}', "images.h5: cannot be read .* run `genrecon replay`"),
    ],
)
def test_bad_input(tmp_path: Path, name: str, content: str, message: str) -> None:
    if name:
        (tmp_path / name).write_text(content, encoding="latin-1")
    with pytest.raises(ReconError, match=message) as caught:
        report(tmp_path)
    assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize("content", [b"", b"no HDF5"])
def test_bad_images(replayed: Path, content: bytes) -> None:
    (replayed / "images.h5").write_bytes(content)
    with pytest.raises(ReconError, match=r"images\.h5: cannot be read"):
        report(replayed)


def test_detailed_region() -> None:
    y, x = detailed_region(disc())
    assert y.start <= 31 and y.stop >= 38 and x.start <= 27 and x.stop >= 35  # the stripes
    assert detailed_region(np.zeros((5, 9), np.float32)) == (slice(0, 5), slice(0, 5))


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("kind", ["benchmark", "replayed"])
def test_nothing_sticks_out_in_a_browser(kind: str, width: int, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium on the PATH: install it to run this test")
    out = report(request.getfixturevalue(kind))
    # A frame has the width wanted; a window of Chromium may be wider than asked for.
    probe = tmp_path / "probe.html"
    probe.write_text(
        f'<iframe src="{out.as_uri()}" width="{width}" height="900"></iframe><pre>?</pre><script>onload = () => {{'
        "const page = document.querySelector('iframe').contentWindow;"
        "document.querySelector('pre').textContent = "
        "`<${page.document.documentElement.scrollWidth} ${page.innerWidth}>`}</script>"
    )
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files", "--dump-dom"]
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    done = subprocess.run([browser, *options, profile, probe.as_uri()], capture_output=True, text=True, timeout=60)
    found = re.search(r"&lt;(\d+) (\d+)&gt;", done.stdout)
    assert found, done.stderr
    assert int(found[1]) <= int(found[2]) <= width

"""`genrecon stream`: pixels, pipes whose other end dies, and what is said then."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ismrmrd
import numpy as np
import pytest
import torch

from gadgets.images import COMPLETED_CALIBRATION, meta_of, meta_values
from gadgets.stream import ReconError
from pipelines.chain import Chain
from pipelines.mrd2.sink import Sink
from pipelines.mrd2.source import source_of
from pipelines.mrd2.streams import Mrd2Reader, Mrd2Writer
from pipelines.raw import RawScan
from pipelines.replay import configured_chain, read_images
from pipelines.send import send
from pipelines.stream import StreamResult, reconstruct_stream, reconstruct_whole
from tests.paths import ROOT
from tests.pipelines.mrd2.streams import INSTALLED, VERSIONS, images, reader, stream
from tests.pipelines.server.serving import address, serving
from tests.raw_files import header, kspace, line, lines, noise, replay, write

SLICES = {"slice": (0, 2, 0)}


def scan(slices: int = 1, noisy: bool = True) -> tuple[str, list[Any]]:
    """Header and lines; slices become brighter."""
    found = [line(noise(), 0, flags=[ismrmrd.ACQ_IS_NOISE_MEASUREMENT])] if noisy else []
    for number in range(slices):
        position = (0.0, 0.0, 10.0 * number)
        data = kspace(position) * (1 + number)
        own = lines(data, slice=number, position=position, scan_counter=number)
        found += own
    return header(limits={"slice": (0, slices - 1, 0)}), found


ONE = scan()
THREE = scan(3)


class Pipe:
    """A pipe; what is written into it is written by a thread."""

    def __init__(self) -> None:
        self.read_end, self.write_end = os.pipe()
        self._thread: threading.Thread | None = None

    def feed(self, content: bytes, close: bool = True) -> None:
        def write() -> None:
            rest = memoryview(content)
            try:
                while rest:
                    rest = rest[os.write(self.write_end, rest) :]
                if close:
                    self.close_write()
            except OSError:  # the test has ended
                pass

        self._thread = threading.Thread(target=write, daemon=True)
        self._thread.start()

    def close_write(self) -> None:
        if self.write_end >= 0:
            number, self.write_end = self.write_end, -1
            os.close(number)

    def close_read(self) -> None:
        if self.read_end >= 0:
            number, self.read_end = self.read_end, -1
            os.close(number)

    def everything(self) -> bytes:
        found = b""
        while chunk := os.read(self.read_end, 1 << 20):
            found += chunk
        return found


@pytest.fixture
def pipes() -> Iterator[tuple[Pipe, Pipe]]:
    """Input and output of a reconstruction."""
    both = (Pipe(), Pipe())
    yield both
    for pipe in both:
        pipe.close_read()
        pipe.close_write()


def streamed(content: bytes, tmp_path: Path, *settings: str, config: str = "cg_sense", **options: Any) -> bytes:
    """What becomes of a stream in a file."""
    given, written = tmp_path / "given.mrd", tmp_path / "written.mrd"
    given.write_bytes(content)
    with given.open("rb") as source, written.open("wb") as sink:
        reconstruct_stream(source.fileno(), sink.fileno(), configured_chain(config, list(settings)), **options)
    return written.read_bytes()


def pixels_of_replay(path: Path, folder: Path, *settings: str) -> list[Any]:
    replay(path, folder, *settings)
    return [image.data for image in read_images(folder, 1)]


def same(found: list[dict[str, Any]], wanted: list[Any]) -> bool:
    return len(found) == len(wanted) and all(
        one["data"].dtype == other.dtype and np.array_equal(one["data"], other)
        for one, other in zip(found, wanted, strict=True)
    )


@pytest.mark.parametrize("version", VERSIONS)
def test_one_image_is_that_of_a_replay_of_the_ismrmrd_file(version: str, tmp_path: Path) -> None:
    wanted = pixels_of_replay(write(tmp_path / "scan.h5", ONE), tmp_path / "out")
    content = stream(*ONE, VERSIONS[version])
    found = images(streamed(content, tmp_path))
    assert same(found, wanted)
    (tmp_path / "scan.mrd").write_bytes(content)
    assert same(found, pixels_of_replay(tmp_path / "scan.mrd", tmp_path / "again"))


@pytest.mark.slow
def test_a_replay_of_the_stream_is_that_of_the_file(tmp_path: Path) -> None:
    wanted, _ = replay(write(tmp_path / "scan.h5", THREE), tmp_path / "out")
    (tmp_path / "scan.mrd").write_bytes(stream(*THREE))
    found, _ = replay(tmp_path / "scan.mrd", tmp_path / "again")
    pairs = list(zip(read_images(wanted.folder, 1), read_images(found.folder, 1), strict=True))
    assert len(pairs) == 3
    for one, other in pairs:
        assert np.array_equal(one.data, other.data)
        assert bytes(one.getHead()) == bytes(other.getHead()) and one.attribute_string == other.attribute_string
    written = tmp_path / "whole.mrd"
    with written.open("wb") as sink:
        reconstruct_whole(tmp_path / "scan.mrd", sink.fileno(), configured_chain("cg_sense", []))
    assert same(images(written.read_bytes()), [one.data for one, _ in pairs])


def test_several_images_have_the_scale_of_the_first_or_the_one_that_is_set(tmp_path: Path) -> None:
    """What a file's brightest image makes of the scale, a stream cannot know; with the same scale all is the same."""
    raw = write(tmp_path / "scan.h5", THREE)
    setting = "generative_recon.pixel_scale=1.5"
    found = images(streamed(stream(*THREE), tmp_path, setting))
    assert same(found, pixels_of_replay(raw, tmp_path / "out", setting))
    assert [one["position"].tolist() for one in found] == [[0, 0, 0], [0, 0, 10], [0, 0, 20]]
    assert {one["imageType"] for one in found} == {"magnitude"}
    plain = images(streamed(stream(*THREE), tmp_path))
    scales = {text for one in plain for _, text in one["meta"]["GADGETRON_ScaleRatio"]}
    assert len(scales) == 1 and scales != {text for _, text in found[0]["meta"]["GADGETRON_ScaleRatio"]}


@pytest.fixture
def one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One thread in this process and in those of a server: sums over several are rounded in another order."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_images_are_those_that_a_server_sends(tmp_path: Path) -> None:
    """Over a socket, every kind of image: bit for bit, with the headers and the attributes."""
    raw = write(tmp_path / "scan.h5", THREE)
    outputs = "magnitude,phase,complex,snr,gfactor"
    parameters = {"config": "cg_sense", "generative_recon.output": outputs}
    with serving() as server:
        send(raw, "cg_sense", address(server), out=tmp_path / "sent", timeout=90, parameters=parameters)
    sent = [image for series in (1, 201, 501, 601, 701) for image in read_images(tmp_path / "sent", series)]
    found = images(streamed(stream(*THREE), tmp_path, f"generative_recon.output={outputs}"))
    assert len(found) == len(sent) == 15
    by_place = {(one["imageSeriesIndex"], one["slice"]): one for one in found}
    for image in sent:
        other = by_place[image.image_series_index, image.slice]
        assert other["data"].dtype == image.data.dtype and np.array_equal(other["data"], image.data)
        assert other["position"].tolist() == list(image.position)
        told = {name: [text for _, text in values] for name, values in other["meta"].items()}
        meta = meta_of(image.attribute_string)
        assert {name: meta_values(meta, name) for name in told} == told


def test_the_header_is_passed_on_and_images_are_whole(tmp_path: Path) -> None:
    content = stream(*ONE)
    opened = reader(streamed(content, tmp_path))
    given = reader(content)
    assert opened.header == given.header and opened.schema.text == given.schema.text
    ((tag, value, _),) = opened.items({"imageuint16"}, {})
    head = value.get("head", value)
    assert tag == "imageuint16" and opened.complete
    assert head["fieldOfView"].tolist() == [150, 150, 5]
    assert head["colDir"].tolist() == [1, 0, 0] and head["lineDir"].tolist() == [0, 1, 0]
    assert [text for _, text in value["meta"]["GenreconMethod"]] == ["cg_sense"]


def test_the_first_image_comes_before_the_last_line(pipes: tuple[Pipe, Pipe]) -> None:
    source, sink = pipes
    content = stream(*THREE)
    result: list[Any] = []

    def run() -> None:
        result.append(reconstruct_stream(source.read_end, sink.write_end, configured_chain("cg_sense", [])))
        sink.close_write()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    source.feed(content[:-4000], close=False)
    opened = Mrd2Reader(source_of(sink.read_end))
    items = opened.items({"imageuint16"}, {})
    assert next(items)[1]["data"].shape == (1, 1, 64, 64)
    source.feed(content[-4000:])
    assert len(list(items)) == 2 and opened.complete
    thread.join()
    assert result[0].images == 3 and result[0].warnings == []


@pytest.mark.parametrize("cut", [0, 3, 100, 30_000, -4000, -1])
def test_an_input_that_ends_early(pipes: tuple[Pipe, Pipe], cut: int) -> None:
    source, sink = pipes
    source.feed(stream(*ONE)[:cut])
    with pytest.raises(ReconError, match=r"ended early|no MRD 2 stream") as caught:
        reconstruct_stream(source.read_end, sink.write_end, configured_chain("cg_sense", []))
    assert "\n" not in str(caught.value)
    sink.close_write()
    with pytest.raises(ReconError):  # nobody takes what came for the whole scan
        images(sink.everything())


@pytest.fixture
def busy(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A chain that computes on its first line until the test ends: a test that waits for it fails by its time limit."""
    released = threading.Event()

    def run(self: Chain, header: Any, items: Iterator[Any], **_: Any) -> Iterator[Any]:
        next(items)
        released.wait()
        yield from ()

    monkeypatch.setattr(Chain, "run", run)
    yield
    released.set()


@pytest.mark.slow
@pytest.mark.usefixtures("busy")
def test_an_input_that_ends_early_while_the_chain_computes(pipes: tuple[Pipe, Pipe]) -> None:
    source, sink = pipes
    content = stream(*scan(12))
    source.feed(content[: len(content) * 525 // 769])  # 512 lines fill the queue, the others fit into the pipe
    with pytest.raises(ReconError, match=r"the stream ends in the middle of item \d+; the program that writes"):
        reconstruct_stream(source.read_end, sink.write_end, configured_chain("cg_sense", []))


@pytest.mark.usefixtures("busy")
@pytest.mark.parametrize("end", [-1, -4000])  # all has come but the end; lines are still due
def test_an_output_that_nobody_reads_any_more(pipes: tuple[Pipe, Pipe], end: int) -> None:
    source, sink = pipes
    source.feed(stream(*THREE)[:end], close=False)
    threading.Timer(0.5, sink.close_read).start()
    with pytest.raises(ReconError, match="the program that reads the images ended early; the scan is not"):
        reconstruct_stream(source.read_end, sink.write_end, configured_chain("cg_sense", []))


def test_an_output_that_is_closed_at_once(pipes: tuple[Pipe, Pipe]) -> None:
    source, sink = pipes
    source.feed(stream(*ONE))
    sink.close_read()
    with pytest.raises(ReconError, match="the program that reads the images ended early"):
        reconstruct_stream(source.read_end, sink.write_end, configured_chain("cg_sense", []))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the input is no MRD 2 stream: it is empty, the program that writes it ended early"),
        (b"\3\0\x10\0\0\0<ismrmrdHeader>", r"\(it is an MRD 1 stream: use genrecon replay or send"),
        (b"\1\0default.xml" + bytes(1100), r"\(it is an MRD 1 stream"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), r"\(it is an HDF5 file: use genrecon replay, or convert it"),
        (b'{"yardl":{"version":1}}\n', r"\(it is an MRD 2 stream as text \(NDJSON\)"),
        (b"GET / HTTP/1.1\r\n\r\n", "the input is no MRD 2 stream$"),
        (b"yardl\1\0\0\0\2{}", "the input: its schema cannot be read; the stream is damaged, send it again"),
    ],
)
def test_inputs_of_another_kind(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(ReconError, match=message):
        streamed(content, tmp_path)


def with_items(content: bytes, *tags: str) -> bytes:
    """A stream with an empty item of some kinds before its lines."""
    found = io.BytesIO()
    opened = reader(content)
    writer = Mrd2Writer(Sink(found.write), opened.schema, opened.header)
    kinds = {tag.lower(): (tag, element) for tag, element in opened.schema.item.cases}
    for name in tags:
        tag, element = kinds[name]
        assert element is not None
        writer.write(tag, element.empty())
    for tag, value, _ in opened.items({"acquisition"}, {}):
        writer.write(kinds[tag][0], value)
    writer.end()
    return found.getvalue()


def test_other_items(tmp_path: Path) -> None:
    content = stream(*ONE)
    wanted = images(streamed(content, tmp_path))
    result = StreamResult()
    mixed = with_items(content, "waveformuint32", "imagefloat", "imagefloat", "arraycomplexfloat")
    assert same(images(streamed(mixed, tmp_path, result=result)), [one["data"] for one in wanted])
    assert result.warnings == [
        "the input has items that are not used and not passed on: 1 arraycomplexfloat, 2 imagefloat"
    ]
    (tmp_path / "mixed.mrd").write_bytes(mixed)
    found, _ = replay(tmp_path / "mixed.mrd", tmp_path / "out")
    assert found.warnings == ["mixed.mrd: items that are not used: 1 arraycomplexfloat, 2 imagefloat"]
    for name in ("acquisitionbucket", "recondata"):
        with pytest.raises(ReconError, match=r"the stream has \w+ of lines; send the lines themselves"):
            streamed(with_items(content, name), tmp_path)
        (tmp_path / "mixed.mrd").write_bytes(with_items(content, name))
        with pytest.raises(ReconError, match=r"mixed\.mrd: the stream has bu"):
            replay(tmp_path / "mixed.mrd", tmp_path / "out")


def test_a_noise_measurement_has_no_image(tmp_path: Path) -> None:
    only = stream(ONE[0], ONE[1][:1])
    result = StreamResult()
    assert images(streamed(only, tmp_path, result=result)) == [] and result.noise_coils == 4
    written = tmp_path / "whole.mrd"
    with written.open("wb") as sink:
        assert (
            reconstruct_whole(tmp_path / "given.mrd", sink.fileno(), configured_chain("cg_sense", [])).noise_coils == 4
        )
    assert images(written.read_bytes()) == []


def test_noise_of_a_file(tmp_path: Path) -> None:
    head, acquisitions = ONE
    own = write(tmp_path / "noise.h5", (head, acquisitions[:1]))
    bare = (head, acquisitions[1:])
    replay(write(tmp_path / "scan.h5", bare), tmp_path / "out", noise=str(own))
    found = images(streamed(stream(*bare), tmp_path, noise=str(own)))
    assert same(found, [image.data for image in read_images(tmp_path / "out", 1)])
    assert not same(found, [one["data"] for one in images(streamed(stream(*bare), tmp_path))])


def test_images_are_no_raw_data(tmp_path: Path) -> None:
    path = tmp_path / "images.mrd"
    path.write_bytes(streamed(stream(*THREE), tmp_path))
    with pytest.raises(
        ReconError, match="it holds 3 images and no raw data; give the raw data that images are made of"
    ):
        RawScan(path)


@pytest.mark.parametrize("whole", [False, True])
def test_warnings_of_images_and_a_reference_scan_that_is_named(whole: bool, tmp_path: Path) -> None:
    named = (
        "<measurementDependency><dependencyType>SenMap</dependencyType><measurementID>7</measurementID>"
        "</measurementDependency>"
    )
    head = ONE[0].replace("</measurementInformation>", f"{named}</measurementInformation>")
    assert named in head
    result = StreamResult()
    content = stream(head, ONE[1][1::2])  # every second line
    if whole:
        (tmp_path / "scan.mrd").write_bytes(content)
        with (tmp_path / "out.mrd").open("wb") as sink:
            reconstruct_whole(tmp_path / "scan.mrd", sink.fileno(), configured_chain("cg_sense", []), result=result)
    else:
        streamed(content, tmp_path, result=result)
    assert COMPLETED_CALIBRATION in result.warnings
    (text,) = [text for text in result.warnings if "names a reference scan for coil maps" in text]
    assert text.endswith("; stream takes none; use replay --reference, or serve")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "header: |no header"),
        ({"kspace_encode_step_1": 5, "encoding_space_ref": 3}, "acquisition 0 refers to encoding 3, the header has 1"),
    ],
)
def test_lines_and_headers_that_do_not_fit(tmp_path: Path, changes: dict[str, int], message: str) -> None:
    head, _ = ONE
    if not changes:
        found = io.BytesIO()
        Mrd2Writer(Sink(found.write), INSTALLED, None).end()
        content = found.getvalue()
    else:
        content = stream(head, lines(kspace(), [5], **changes))
    with pytest.raises(ReconError, match=message):
        streamed(content, tmp_path)


def test_memory_that_a_header_asks_for(tmp_path: Path) -> None:
    content = stream(header(encoded=(128, 30000, 30000), limits=SLICES), lines(kspace()))
    with pytest.raises(ReconError, match=r"would need about \S+ GiB of memory, the limit is 16 GiB; raise --memory"):
        streamed(content, tmp_path)


def command(*arguments: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    program = [sys.executable, "-m", "pipelines.cli", "stream", *arguments]
    return subprocess.run(program, cwd=ROOT, env=environment, capture_output=True, check=False, timeout=100, **options)


@pytest.mark.slow
def test_as_a_program_in_a_pipe(tmp_path: Path) -> None:
    content = stream(*ONE)
    result = command("-c", "cg_sense", input=content)
    assert (result.returncode, result.stderr) == (0, b"")
    assert same(images(result.stdout), [one["data"] for one in images(streamed(content, tmp_path))])


@pytest.mark.slow
def test_an_error_of_the_program_is_one_line_and_no_file(tmp_path: Path) -> None:
    out = tmp_path / "out.mrd"
    out.write_text("mine")
    result = command("--output", str(out), input=stream(*ONE)[:-1])
    assert result.returncode == 1 and result.stdout == b""
    (said,) = result.stderr.decode().splitlines()
    assert said.startswith("error: the input: the stream ends in the middle of item 65; the program that writes it")
    assert [path.name for path in tmp_path.iterdir()] == ["out.mrd"] and out.read_text() == "mine"

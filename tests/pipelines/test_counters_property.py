"""Headers and counters as they may come: every line is used once or reported, no image lost, doubled or renumbered."""

from __future__ import annotations

import functools
import itertools
import logging
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import ismrmrd
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gadgets.dicom.instance_numbers import InstanceNumbers
from gadgets.image_headers import image_header
from gadgets.numbering import Numbers
from gadgets.stream import ReconError
from gadgets.survey import Survey
from gadgets.twins import AcquisitionAccumulateTriggerGadget, BucketToBufferGadget
from tests import raw_files

LINES = 16
LOOPS = ("slice", "contrast", "phase", "repetition", "set")
FIXED = {"derandomize": True, "deadline": None, "suppress_health_check": list(HealthCheck)}
CHAIN = {"trigger_dimension": "repetition", "sorting_dimension": "slice"}
BUFFERS = {"N_dimension": "contrast", "S_dimension": "average", "split_slices": "true", "ignore_segment": "true"}


@functools.cache
def kspace() -> Any:
    return raw_files.kspace(samples=(32, LINES))


def limits_of(start: int, count: int) -> Any:
    """Limits of a counter: right, absent, too small, too large, elsewhere, nonsense."""
    last = start + count - 1
    right = (start, last, start)
    small, large = (start, max(start, last - 1), start), (0, last + 9, 0)
    return st.sampled_from([right, None, small, large, (0, 0, 0), (0, 9999, 0), (start + 2, last + 5, start + 2)])


@st.composite
def scans(draw: Any) -> tuple[str, list[Any], list[tuple[str, int, int]]]:
    """A header, the lines of a scan in the order of its loops, and its counters (name, first value, number)."""
    sizes = {name: draw(st.sampled_from([1, 1, 1, 2, 3])) for name in LOOPS}
    while np.prod(list(sizes.values())) > 12:
        sizes[max(sizes, key=lambda name: sizes[name])] = 1
    starts = {name: draw(st.sampled_from([0, 0, 1, 7, 40000])) for name in LOOPS}
    order = draw(st.permutations([*LOOPS, "line"]))
    limits = {name: draw(limits_of(starts[name], sizes[name])) for name in LOOPS}
    first = draw(st.sampled_from([0, 0, 1]))
    step_limits = [(first, first + LINES - 1, first + LINES // 2), (0, LINES - 1, LINES // 2), (0, 0, 0), None]
    limits["kspace_encoding_step_1"] = draw(st.sampled_from(step_limits))
    flagged = draw(st.sampled_from(["none", "right", "every run"]))
    ranges = [
        range(first, first + LINES) if name == "line" else range(starts[name], starts[name] + sizes[name])
        for name in order
    ]
    places = [dict(zip(order, values, strict=True)) for values in itertools.product(*ranges)]
    k = kspace()
    lines = [
        raw_files.line(
            k[:, place["line"] - first] * (1 + number % 7 / 100),
            place["line"],
            scan_counter=number + 1,
            **{name: place[name] for name in LOOPS},
        )
        for number, place in enumerate(places)
    ]
    if flagged != "none":
        last_of = {image_of(line): line for line in lines}
        for line, after in itertools.zip_longest(lines, lines[1:]):
            run_ends = after is None or after.idx.slice != line.idx.slice
            if line is last_of[image_of(line)] or (flagged == "every run" and run_ends):
                line.set_flag(ismrmrd.ACQ_LAST_IN_SLICE)
    header = raw_files.header(
        encoded=(32, LINES, 1), recon=(16, LINES, 1), limits={name: value for name, value in limits.items() if value}
    )
    if limits["kspace_encoding_step_1"] is None:
        header = header.replace(
            "<kspace_encoding_step_1><minimum>0</minimum><maximum>63</maximum><center>32</center></kspace_encoding_step_1>",
            "",
        )
    return header, lines, [(name, starts[name], sizes[name]) for name in LOOPS]


def image_of(line: Any) -> tuple[int, ...]:
    return tuple(int(getattr(line.idx, name)) for name in LOOPS)


def survey_of(lines: list[Any]) -> Survey:
    heads = b"".join(bytes(line.getHead()) for line in lines)
    return Survey(np.frombuffer(heads, dtype=np.dtype(ismrmrd.hdf5.acquisition_header_dtype)))


def buffered(header: Any, lines: list[Any], survey: Survey | None) -> list[Any]:
    """Images as (image header, scan counters of their lines), after trigger and buffers."""
    items: Any = iter(lines)
    for gadget, properties in (
        (AcquisitionAccumulateTriggerGadget(), CHAIN),
        (BucketToBufferGadget(), BUFFERS),
    ):
        gadget.survey = survey
        gadget.configure(header, properties)
        items = gadget.process(items)
    images = []
    for item in items:
        buffer = item[0].data
        for place in np.ndindex(*buffer.headers.shape[2:]):
            heads = buffer.headers[(slice(None), slice(None), *place)]
            used = [head.scan_counter for head in heads.flat if head.number_of_samples]
            if used:
                images.append((image_header(heads, buffer, header, 0), used))
    return images


@pytest.mark.slow
@pytest.mark.parametrize("known", [True, False], ids=["file", "stream"])
@settings(max_examples=60, **FIXED)
@given(scan=scans())
def test_every_line_is_in_its_image(known: bool, scan: Any) -> None:
    text, lines, _ = scan
    header = ismrmrd.xsd.CreateFromDocument(text.encode())
    survey = survey_of(lines) if known else None
    images = buffered(header, lines, survey)
    expected: dict[tuple[int, ...], set[int]] = {}
    for line in lines:
        expected.setdefault(image_of(line), set()).add(line.scan_counter)
    found = {tuple(int(getattr(image, name)) for name in LOOPS): set(used) for image, used in images}
    assert found == expected  # in a stream, an image that was made again has all lines the last time
    if known:
        assert len(images) == len(expected)
        assert Counter(line for _, used in images for line in used) == Counter(range(1, len(lines) + 1))
    check_numbers(images, header, survey)


def check_numbers(images: list[Any], header: Any, survey: Survey | None) -> None:
    """Image indices and InstanceNumbers are unique; those of a file are in the order of the counters."""
    indices, numbers = Numbers(2**16 - 1), InstanceNumbers(header, survey)
    given_indices, given_numbers = [], {}
    for head, _ in images:
        given_indices.append(indices.take(head.image_index))
        image = ismrmrd.Image(head)
        key = tuple(int(getattr(head, name)) for name in ("repetition", "average", "set", "phase", "contrast", "slice"))
        given_numbers.setdefault(key, []).append(numbers.take("1.2", image, 0, 0))
    assert len(set(given_indices)) == len(images)
    flat = [number for each in given_numbers.values() for number in each]
    assert len(set(flat)) == len(images) and all(1 <= number < 2**31 for number in flat)
    if survey is not None:
        assert [each[0] for _, each in sorted(given_numbers.items())] == sorted(flat)


@pytest.mark.slow
@settings(max_examples=12, **FIXED)
@given(scan=scans())
def test_a_replay_has_the_images_that_were_acquired(scan: Any) -> None:
    text, lines, _ = scan
    with tempfile.TemporaryDirectory() as folder:
        raw = raw_files.write(Path(folder) / "scan.h5", (text, lines))
        result, datasets = raw_files.replay(raw, Path(folder) / "out")
    wanted = {image_of(line) for line in lines}
    assert len(datasets) == result.dicom_files == result.images == len(wanted)
    assert len({dataset.InstanceNumber for dataset in datasets}) == len(wanted)
    assert len({dataset.SOPInstanceUID for dataset in datasets}) == len(wanted)
    assert all(dataset.pixel_array.max() > 0 for dataset in datasets)
    assert not any("not complete" in warning for warning in result.warnings)


@settings(max_examples=40, **FIXED)
@given(data=st.data(), scan=scans())
def test_any_lines_are_used_or_reported(data: Any, scan: Any) -> None:
    """Lines in any order, left out, doubled, with other phase encodings: an error of one line, or all are accounted."""
    text, lines, _ = scan
    chosen = data.draw(st.lists(st.sampled_from(range(len(lines))), min_size=1, max_size=60))
    made = []
    for number, index in enumerate(chosen, 1):
        copy = ismrmrd.Acquisition(lines[index].getHead(), lines[index].data)
        copy.scan_counter = number
        copy.idx.kspace_encode_step_1 = data.draw(st.sampled_from([copy.idx.kspace_encode_step_1] * 9 + [65535, 300]))
        made.append(copy)
    header = ismrmrd.xsd.CreateFromDocument(text.encode())
    for survey in (None, survey_of(made)):
        texts = Texts()
        logging.getLogger("genrecon").addHandler(texts)
        try:
            images = buffered(header, made, survey)
        except ReconError as error:
            assert "\n" not in str(error)
            continue
        finally:
            logging.getLogger("genrecon").removeHandler(texts)
        used = {line for _, lines_of in images for line in lines_of}
        missing = len(made) - len(used)
        assert missing == 0 or texts.reported >= missing


class Texts(logging.Handler):
    """Adds up the lines that warnings report as left out or replaced."""

    reported = 0

    def emit(self, record: logging.LogRecord) -> None:
        if "lines" in record.msg and record.args and isinstance(record.args[0], int):
            self.reported += record.args[0]

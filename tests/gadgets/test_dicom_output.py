"""The gadget that writes DICOM: where to, and what passes on."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import ismrmrd
import numpy as np
import pytest

from gadgets.dicom_output import DicomOutput
from gadgets.stream import ReconError
from pipelines.chain import read_chain, shipped_chains
from tests.gadgets.dicom.dicom_images import make_header, make_image


def test_where_to_write_must_be_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ReconError, match=r"neither property 'folder' nor 'pacs'; name a folder .* 'none' to write no"):
        DicomOutput().configure(make_header(), {})
    gadget = DicomOutput()
    gadget.configure(make_header(), {"folder": "none"})
    items = [make_image(), make_image(np.full((1, 1, 4, 4), np.nan, np.float32))]
    assert list(gadget.process(iter(items))) == items
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", shipped_chains())
def test_shipped_chains_name_no_folder(name: str) -> None:
    node = read_chain(name).external("gadgets.dicom_output")
    assert node is not None and node.properties["folder"] == "none"


def test_gadget_writes_and_passes_everything_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    gadget = DicomOutput()
    gadget.configure(make_header(False), {"folder": str(tmp_path), "anonymize": "true"})
    blank: dict[str, Any] = {"read_dir": (0, 0, 0), "phase_dir": (0, 0, 0)}
    items = [make_image(**blank), ismrmrd.Waveform(), make_image(slice=1, **blank)]
    kept = items[0].data.copy(), items[0].attribute_string
    with caplog.at_level(logging.WARNING, "genrecon"):
        out = list(gadget.process(iter(items)))
    assert all(a is b for a, b in zip(out, items, strict=True))
    np.testing.assert_array_equal(out[0].data, kept[0])
    assert out[0].attribute_string == kept[1]
    assert len(list(tmp_path.rglob("*.dcm"))) == 2
    assert caplog.text.count("orientation is assumed") == 1
    with pytest.raises(ReconError, match="series_number_offset"):
        gadget.configure(make_header(False), {"series_number_offset": "-1"})


@pytest.mark.slow
def test_import_is_light() -> None:
    heavy = "{'torch', 'sigpy', 'skimage', 'matplotlib'} & {m.split('.')[0] for m in sys.modules}"
    code = f"import sys, gadgets.dicom_output; print({heavy})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "set()"

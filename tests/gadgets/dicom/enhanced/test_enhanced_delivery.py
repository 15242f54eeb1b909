"""Enhanced files on their way to a PACS."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pynetdicom.sop_class import EnhancedMRImageStorage, MRImageStorage

from gadgets.dicom.enhanced.instances import enhanced_datasets
from gadgets.dicom.sender import Sender
from gadgets.dicom.writer import encoded
from gadgets.dicom_output import DicomOutput
from tests.gadgets.dicom.dicom_images import make_header
from tests.gadgets.dicom.pacs_servers import Scp, Stow, uids
from tests.gadgets.dicom.spool_files import FILES, QUICK, UIDS, exhaust, fill, messages, waiting
from tests.gadgets.dicom.stack_images import at, frames_of


def enhanced_file() -> bytes:
    (ds,) = enhanced_datasets(frames_of(*(at(6.0 * n, slice=n) for n in range(3))))
    return encoded(ds)


def test_a_series_arrives_by_c_store(tmp_path: Path) -> None:
    with Scp(sop_class=EnhancedMRImageStorage) as scp:
        gadget = DicomOutput()
        properties = {"pacs": scp.url, "spool": str(tmp_path), "frames": "enhanced", "pacs_wait_s": "20"}
        gadget.configure(make_header(), properties)
        assert len(list(gadget.process(iter([at(6.0 * n, slice=n) for n in range(3)])))) == 3
    assert len(scp.received) == 1 and not list(tmp_path.rglob("*.dcm"))


def test_a_series_arrives_by_stow_rs(stow: Stow, tmp_path: Path) -> None:
    file = enhanced_file()
    folder = fill(tmp_path, stow.url, [file])
    exhaust(Sender(folder, QUICK))
    assert stow.received == uids([file]) and not waiting(folder)


def test_a_pacs_without_enhanced_mr_gets_the_other_files_and_the_reason_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Scp(sop_class=MRImageStorage) as scp:
        folder = fill(tmp_path, scp.url, [enhanced_file(), *FILES])
        exhaust(Sender(folder, QUICK))
    assert sorted(scp.received) == sorted(UIDS)
    assert len(list((folder / "failed").glob("*.dcm"))) == 1
    assert any("takes no Enhanced MR; set dicom_output.frames=single" in line for line in messages(caplog))


def test_single_frames_do_not_need_a_pacs_with_enhanced_mr(scp: Any, tmp_path: Path) -> None:
    exhaust(Sender(fill(tmp_path, scp.url), QUICK))
    assert sorted(scp.received) == sorted(UIDS)

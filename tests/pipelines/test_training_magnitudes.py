"""Magnitude images to learn from: DICOM, NIfTI, folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

from gadgets.stream import ReconError
from pipelines.training_data import training_images
from pipelines.training_magnitudes import magnitude_images


def write_dicom(path: Path, pixels: np.ndarray, **elements: Any) -> None:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = MRImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    dataset.Modality, dataset.ImageType = "MR", ["ORIGINAL", "PRIMARY", "M", "ND"]
    dataset.Rows, dataset.Columns = pixels.shape[-2:]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PixelRepresentation = 1, "MONOCHROME2", 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
    dataset.PixelData = pixels.astype("<u2").tobytes()
    for name, value in elements.items():
        setattr(dataset, name, value)
    dataset.save_as(path, enforce_file_format=True)


def block(height: int, width: int, bright: int = 1000) -> np.ndarray:
    image = np.zeros((height, width), np.uint16)
    image[height // 4 : height // 2, width // 4 : -width // 4] = bright
    return image


def test_a_folder_gives_its_mr_magnitudes_of_one_matrix(tmp_path: Path) -> None:
    (tmp_path / "series").mkdir()
    for number in range(2):
        write_dicom(tmp_path / "series" / f"{number}", block(40, 32), RescaleSlope=0.5, RescaleIntercept=0)
    write_dicom(tmp_path / "double.dcm", block(80, 64))  # interpolated by the scanner
    write_dicom(tmp_path / "small.dcm", block(36, 32))
    write_dicom(tmp_path / "phase.dcm", block(40, 32), ImageType=["ORIGINAL", "PRIMARY", "P", "ND"])
    write_dicom(tmp_path / "ct.dcm", block(40, 32), Modality="CT")
    (tmp_path / "notes.txt").write_text("nothing to see")
    found = training_images((tmp_path,))
    assert found.shape == (5 - 1, 40, 32) and found.dtype == torch.complex64
    assert not found.imag.any()
    of_series = found[found.abs().amax((1, 2)) == 500]
    assert len(of_series) == 2
    torch.testing.assert_close(of_series[0].real.numpy(), block(40, 32, 500).astype(np.float32))
    likeness = [np.corrcoef(one.real.numpy().ravel(), block(40, 32).ravel())[0, 1] for one in found]
    assert sum(value > 0.95 for value in likeness) == 3  # the resampled one, too; the small one lies elsewhere


def test_nifti_volumes_are_cut_across_their_thickest_direction(tmp_path: Path) -> None:
    volume = np.zeros((48, 6, 40), np.float32)  # x, thick slices, z
    volume[10:20, 1:5, 5:15] = np.arange(1, 5)[None, :, None]
    image = nibabel.Nifti1Image(volume, np.diag([1, 5, 1, 1]))
    nibabel.save(image, tmp_path / "scan.nii.gz")
    found = magnitude_images(tmp_path / "scan.nii.gz")
    assert found.shape == (4, 40, 48)  # slices outside of the object are left out
    assert found[2, 10, 15] == 3 and found[2, 30, 15] == 0
    nibabel.save(nibabel.Nifti1Image(np.ones((40, 32, 3, 2), np.float32), np.eye(4)), tmp_path / "series.nii")
    assert magnitude_images(tmp_path / "series.nii").shape == (6, 32, 40)


def test_what_cannot_be_learnt_from_is_refused(tmp_path: Path) -> None:
    def refused(match: str, path: Path) -> None:
        with pytest.raises(ReconError, match=match) as caught:
            magnitude_images(path)
        assert "\n" not in str(caught.value) and str(path) in str(caught.value)

    (tmp_path / "empty").mkdir()
    refused("no MR image in it", tmp_path / "empty")
    broken = tmp_path / "broken.nii"
    broken.write_bytes(b"no volume")
    refused("cannot be read as NIfTI", broken)
    signed = tmp_path / "signed.nii"
    nibabel.save(nibabel.Nifti1Image(np.full((40, 40, 2), -1, np.float32), np.eye(4)), signed)
    refused("below zero", signed)
    tiny = tmp_path / "tiny.dcm"
    write_dicom(tiny, block(16, 16))
    refused("less than 32 pixels", tiny)
    cut = tmp_path / "cut.dcm"
    write_dicom(cut, block(40, 40))
    cut.write_bytes(cut.read_bytes()[:-500])
    refused("cannot be read as DICOM", cut)

"""Replay over a dask cluster against replay in this process."""

from __future__ import annotations

import warnings

import h5py
import numpy as np
import pydicom
import pytest

from gadgets.stream import ReconError
from pipelines.evaluation.distribute import DaskReplay, dask_client
from pipelines.replay import DICOM_MODULE, configured_chain, read_images, replay
from pipelines.simulation import SimulationSettings, simulate, write_raw
from tests.pipelines.evaluation.cluster import cluster

SCAN = {"matrix": (48, 48, 1), "coils": 4, "sampling": "uniform", "acceleration": 2, "calibration_lines": 16}


@pytest.mark.slow
def test_slices_over_workers_give_the_same_images_and_dicom(tmp_path):
    raw = tmp_path / "scan.h5"
    write_raw(raw, simulate(SimulationSettings(**SCAN, slices=3, slice_order="interleaved", repetitions=2)))
    with h5py.File(raw, "r+") as file:  # the slice that ends first is empty: the pixel scale is not its
        lines = file["dataset/data"][:]
        for row in lines:
            if row["head"]["idx"]["slice"] == 0 and not row["head"]["flags"] & (1 << 18):
                row["data"] = 0 * row["data"]
        file["dataset/data"][:] = lines
    bad = tmp_path / "bad.h5"
    write_raw(bad, simulate(SimulationSettings(**{**SCAN, "calibration_lines": 12}, slices=2)))
    here = replay(raw, "cg_sense", tmp_path / "here")
    with cluster(tmp_path) as (address, _), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        client = dask_client(address)
        chain = configured_chain("cg_sense", None)
        spread = DaskReplay(client, raw, chain.without(DICOM_MODULE))
        wrong = configured_chain("cg_sense", ["generative_recon.iterations=many"])
        failing = DaskReplay(client, bad, wrong.without(DICOM_MODULE))
        there = replay(raw, "cg_sense", tmp_path / "there", dask=spread)
        with pytest.raises(ReconError, match="property 'iterations' is 'many'"):
            replay(bad, "cg_sense", tmp_path / "failed", dask=failing)
        client.close()
    assert not (tmp_path / "failed").exists()
    assert here.images == there.images == 6 and here.dicom_files == there.dicom_files
    assert {timing.name for timing in there.timings} == {timing.name for timing in here.timings}
    ours = {(i.slice, i.repetition): i for i in read_images(here.folder, 1)}
    theirs = {(i.slice, i.repetition): i for i in read_images(there.folder, 1)}
    assert ours.keys() == theirs.keys()
    for place, image in ours.items():
        difference = np.abs(image.data.astype(int) - theirs[place].data.astype(int))
        assert difference.max() <= 1 and (difference > 0).mean() < 0.001  # the pixel scale goes through a text
        assert image.image_index == theirs[place].image_index
    uids = [
        {pydicom.dcmread(path).SOPInstanceUID for path in (result.folder / "dicom").rglob("*.dcm")}
        for result in (here, there)
    ]
    assert uids[0] == uids[1] and len(uids[0]) == 6


@pytest.mark.parametrize("chain", ["hkgm", "wkgm"])
def test_chains_that_train_on_the_scan_are_refused(chain, tmp_path):
    learning = configured_chain(chain, ["generative_recon.training=self"])
    with pytest.raises(ReconError, match="training=self trains on the whole scan; replay it without --dask"):
        DaskReplay(None, tmp_path / "scan.h5", learning)

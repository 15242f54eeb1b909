"""Simulated scans as ISMRMRD HDF5 files, with raw data and truth."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import h5py
import ismrmrd
import numpy as np
from ismrmrd import hdf5 as ismrmrd_hdf5
from ismrmrd import xsd
from numpy.typing import NDArray

from pipelines.simulation.scan import Simulation


def write_raw(
    path: str | os.PathLike[str], simulation: Simulation, progress: Callable[[int], None] | None = None
) -> None:
    """Write a simulated scan as an ISMRMRD HDF5 file, with raw data and truth.

    The group `dataset` holds `xml`, `data` and `truth` (float32, axes named in its attribute `axes`). The
    file appears under its name only when it is complete.

    Parameters
    ----------
    path
        File to write; an existing one is replaced.
    simulation
        The scan.
    progress
        Called with the number of acquisitions written by each block.
    """
    target = Path(path)
    unfinished = target.with_name(f".{target.name}.{os.getpid()}.part")
    block_length = 128
    try:
        with h5py.File(unfinished, "w") as file:
            group = file.create_group("dataset")
            group.create_dataset("xml", (1,), dtype=h5py.special_dtype(vlen=bytes))
            group["xml"][0] = xsd.ToXML(simulation.header).encode()
            data = group.create_dataset(
                "data",
                (simulation.number_of_acquisitions,),
                ismrmrd_hdf5.acquisition_dtype,
                maxshape=(None,),
                chunks=(block_length,),
            )
            block: list[ismrmrd.Acquisition] = []
            written = 0
            for acquisition in simulation.acquisitions():
                block.append(acquisition)
                if len(block) == block_length or written + len(block) == data.shape[0]:
                    data[written : written + len(block)] = _records(block)
                    written += len(block)
                    if progress is not None:
                        progress(len(block))
                    block = []
            truth = group.create_dataset("truth", data=simulation.truth)
            truth.attrs["axes"] = "repetition slice z y x" if simulation.settings.is_3d else "repetition slice y x"
        os.replace(unfinished, target)
    finally:
        with suppress(FileNotFoundError):
            unfinished.unlink()


def _records(block: Sequence[ismrmrd.Acquisition]) -> NDArray[np.void]:
    """Acquisitions as rows of the HDF5 table."""
    records = np.empty(len(block), ismrmrd_hdf5.acquisition_dtype)
    for record, acquisition in zip(records, block, strict=True):
        record["head"] = np.frombuffer(acquisition.getHead(), ismrmrd_hdf5.acquisition_header_dtype)[0]
        record["traj"] = np.empty(0, np.float32)
        record["data"] = acquisition.data.view(np.float32).ravel()
    return records


def read_truth(raw: str | Path) -> Any:
    """The true images in a simulated raw file, float32 (repetition, slice, [z,] y, x); None in a real scan."""
    with h5py.File(raw, "r") as file:
        return file["dataset/truth"][:] if "dataset/truth" in file else None

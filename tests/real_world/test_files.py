"""HDF5 files laid out as other writers lay them out."""

from __future__ import annotations

import struct

import h5py
import ismrmrd
import numpy as np
import pytest
from ismrmrd.hdf5 import acquisition_dtype
from ismrmrd.serialization import ProtocolSerializer

from gadgets.errors import ReconError
from pipelines.replay import replay as replay_file
from tests.raw_files import header, kspace, lines, replay, write
from tests.real_world.conftest import is_right


@pytest.fixture
def scan(tmp_path, data):
    return write(tmp_path / "scan.h5", (header(), lines(data)))


@pytest.mark.parametrize("kind", ["fixed length", "UTF-8", "no dimension", "rank 2", "fixed, padded with NUL"])
def test_header_as_another_kind_of_text(scan, tmp_path, kind):
    """ismrmrd-python-tools#14, io#709, ismrmrd#88"""
    text = header()
    with h5py.File(scan, "a") as file:
        del file["dataset/xml"]
        if kind == "fixed length":
            file["dataset/xml"] = np.array([text.encode()])
        elif kind == "UTF-8":
            file.create_dataset("dataset/xml", (1,), dtype=h5py.string_dtype())[0] = text
        elif kind == "no dimension":
            file["dataset/xml"] = text
        elif kind == "rank 2":
            file.create_dataset("dataset/xml", (1, 1), dtype=h5py.string_dtype())[0, 0] = text
        else:
            file["dataset/xml"] = np.array([text.encode() + b"\0\0"], dtype=f"S{len(text) + 2}")
    _, (image,) = replay(scan, tmp_path / "out")
    assert is_right(image)


def rewrite(path, dtype, **options):
    """Write the table of acquisitions with another type of its rows, and other options of its storage."""
    with h5py.File(path, "a") as file:
        rows = file["dataset/data"][:]
        made = np.zeros(len(rows), dtype)
        copy(rows, made)
        del file["dataset/data"]
        file.create_dataset("dataset/data", data=made, **options)


def copy(source, target):
    for name in target.dtype.names:
        if source.dtype[name].names:
            copy(source[name], target[name])
        elif source.dtype[name].kind == "O":
            wide = target.dtype[name].metadata["vlen"]
            for index, row in enumerate(source[name]):
                target[name][index] = row.astype(wide)
        else:
            target[name] = source[name]


def reversed_fields(dtype):
    return np.dtype([(name, dtype[name]) for name in reversed(dtype.names)])


HEAD = acquisition_dtype["head"]
VALUES = h5py.special_dtype(vlen=np.dtype("float32"))
TABLES = {
    "columns in another order": reversed_fields(acquisition_dtype),
    "float64 samples": np.dtype(
        [("head", HEAD), ("traj", VALUES), ("data", h5py.special_dtype(vlen=np.dtype("float64")))]
    ),
    "big-endian samples": np.dtype(
        [("head", HEAD), ("traj", VALUES), ("data", h5py.special_dtype(vlen=np.dtype(">f4")))]
    ),
    "head in another order": np.dtype([("head", reversed_fields(HEAD)), ("traj", VALUES), ("data", VALUES)]),
    "big-endian head": np.dtype([("head", HEAD.newbyteorder(">")), ("traj", VALUES), ("data", VALUES)]),
    "aligned head": np.dtype([("head", np.dtype(HEAD.descr, align=True)), ("traj", VALUES), ("data", VALUES)]),
    "no user fields": np.dtype(
        [
            ("head", [(name, HEAD[name]) for name in HEAD.names if not name.startswith("user")]),
            ("traj", VALUES),
            ("data", VALUES),
        ]
    ),
    "no trajectories": np.dtype([("head", HEAD), ("data", VALUES)]),
}


@pytest.mark.parametrize("dtype", TABLES.values(), ids=TABLES.keys())
def test_acquisitions_as_another_writer_lays_them_out(scan, tmp_path, dtype):
    """MRIReco.jl#25, #194, HDF5.jl#426, siemens_to_ismrmrd#101: readers go by the names of the fields."""
    rewrite(scan, dtype)
    _, (image,) = replay(scan, tmp_path / "out")
    assert is_right(image)


@pytest.mark.parametrize(
    "options", [{"chunks": (1,)}, {"compression": "gzip"}, {"compression": "lzf", "shuffle": True}]
)
def test_storage_of_the_table(scan, tmp_path, options):
    """MRIReco.jl#291, ismrmrd#223"""
    rewrite(scan, acquisition_dtype, **options)
    _, (image,) = replay(scan, tmp_path / "out")
    assert is_right(image)


def test_table_of_rank_two(scan, tmp_path):
    """HDF5 files of MATLAB have no arrays of one dimension."""
    with h5py.File(scan, "a") as file:
        rows = file["dataset/data"][:]
        del file["dataset/data"]
        file["dataset/data"] = rows[:, None]
    _, (image,) = replay(scan, tmp_path / "out")
    assert is_right(image)


def test_channels_and_samples_left_at_zero(scan, tmp_path):
    """MRIReco.jl#33, gadgetron#870: the data are there, the header of each says 0 samples of 0 channels."""
    with h5py.File(scan, "a") as file:
        rows = file["dataset/data"][:]
        for name in ("active_channels", "number_of_samples", "available_channels", "center_sample"):
            rows["head"][name] = 0
        file["dataset/data"][:] = rows
        text = header(
            after="<acquisitionSystemInformation><receiverChannels>4</receiverChannels></acquisitionSystemInformation>"
        )
        file["dataset/xml"][0] = text
    _, (image,) = replay(scan, tmp_path / "out")
    assert is_right(image)


def test_waveforms_beside_the_acquisitions(scan, tmp_path):
    """siemens_to_ismrmrd#29, #34"""
    with ismrmrd.File(str(scan), "a") as file:
        waves = []
        for number in range(5):
            wave = ismrmrd.Waveform.from_array(np.full((2, 16), number, np.uint32))
            waves.append(wave)
        file["dataset"].waveforms = waves
    _, (image,) = replay(scan, tmp_path / "out")
    assert is_right(image)


def test_images_beside_the_acquisitions(scan, tmp_path):
    """ismrmrd-python#24, mridata.org: images of the scanner in the same file"""
    with ismrmrd.Dataset(str(scan), "dataset") as dataset:
        dataset.append_image("image_0", ismrmrd.Image.from_array(np.ones((8, 8), np.float32)))
    _, (image,) = replay(scan, tmp_path / "out")
    assert is_right(image)


def test_images_only(tmp_path):
    """ismrmrd-python#24"""
    path = tmp_path / "images.h5"
    with ismrmrd.Dataset(str(path), "dataset") as dataset:
        dataset.write_xml_header(header().encode())
        dataset.append_image("image_0", ismrmrd.Image.from_array(np.ones((8, 8), np.float32)))
    with pytest.raises(ReconError, match="no acquisitions"):
        replay(path, tmp_path / "out")


def test_no_header(scan, tmp_path):
    """SIRF#432"""
    with h5py.File(scan, "a") as file:
        del file["dataset/xml"]
    with pytest.raises(ReconError, match="header"):
        replay(scan, tmp_path / "out")


def test_measurements_of_one_file(tmp_path, data):
    """siemens_to_ismrmrd#66, #142: an adjustment and the scan: the scan, or a question; never the adjustment."""
    adjustment = kspace(objects=[((0, 0, 0), 45, 1.0)])
    path = write(
        tmp_path / "scan.h5",
        (header(protocol="AdjCoilSens"), lines(adjustment), "dataset_1"),
        (header(protocol="t1_scan"), lines(data), "dataset_2"),
    )
    try:
        _, (image,) = replay(path, tmp_path / "out")
    except ReconError as error:
        assert "dataset_2" in str(error)
    else:
        assert "t1_scan" in image.SeriesDescription
        assert is_right(image)


def test_stream_in_a_file(tmp_path, data):
    """siemens_to_ismrmrd#152: the converter writes an MRD stream since 1.3."""
    path = tmp_path / "scan.mrd"
    with path.open("wb") as file:
        text = header().encode()
        file.write(struct.pack("<HI", 3, len(text)) + text)
        serializer = ProtocolSerializer(file)
        for one in lines(data):
            serializer.serialize(one)
        file.write(struct.pack("<H", 4))
    _, (image,) = replay(path, tmp_path / "out")
    assert is_right(image)


def test_fastmri(tmp_path):
    """ismrmrd#151, ismrmrd-python-tools#19: (slice, coil, readout, phase), with the header in a data set of its own"""
    path = tmp_path / "file1000000.h5"
    slices = np.stack([kspace(), kspace((0, 0, 5))])
    with h5py.File(path, "w") as file:
        file["kspace"] = slices.swapaxes(2, 3)
        file["ismrmrd_header"] = header(limits={"slice": (0, 1, 0)})
        file["reconstruction_rss"] = np.zeros((2, 64, 64), np.float32)
    result = replay_file(path, "cg_sense", tmp_path / "out")
    assert result.images == 2

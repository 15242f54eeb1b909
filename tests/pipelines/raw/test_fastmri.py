"""fastMRI files: the images of the same lines in ISMRMRD files, and errors of files that do not hold together."""

from __future__ import annotations

import tracemalloc

import h5py
import numpy as np
import pytest

from gadgets.stream import ReconError
from pipelines.info import describe
from pipelines.raw import RawScan
from tests.pipelines.raw.fastmri_files import SPACING, two_slices, write_fastmri, write_twin
from tests.raw_files import MARKER, header, kspace, marker, pixels, replay

SLICES = {"slice": (0, 1, 0)}
PADDED = header(limits=SLICES | {"kspace_encoding_step_1": (0, 55, 28)})  # 56 lines, 4 to 59 of 64


def images(path, folder, *settings):
    return [pixels(dataset) for dataset in replay(path, folder, *settings)[1]]


def padded(data):
    return np.pad(data[:, :, 4:60], ((0, 0), (0, 0), (4, 4), (0, 0)))


@pytest.mark.slow
def test_it_is_replayed_as_its_lines_in_an_ismrmrd_file(tmp_path):
    raw = write_fastmri(tmp_path / "f.h5", two_slices(), header(), reconstruction_rss=np.zeros((2, 64, 64)))
    result, datasets = replay(raw, tmp_path / "out")
    assert marker(datasets[0]) == pytest.approx(MARKER, abs=0.2)
    assert [float(dataset.ImagePositionPatient[2]) for dataset in datasets] == [0.0, SPACING]
    twin = images(write_twin(tmp_path / "i.h5", two_slices()), tmp_path / "twin")
    assert len(datasets) == len(twin) == 2
    for dataset, image in zip(datasets, twin, strict=True):
        np.testing.assert_array_equal(pixels(dataset), image)
        assert "position and sides are not known" in dataset.ImageComments
    assert any("no slice positions" in text for text in result.warnings)


@pytest.mark.slow
@pytest.mark.parametrize("columns", [slice(None), slice(4, 60)], ids=["zero-filled", "without the zeros"])
def test_lines_that_were_zero_filled_are_no_lines(tmp_path, columns):
    data = padded(two_slices())
    raw = write_fastmri(tmp_path / "f.h5", data[:, :, columns], PADDED)
    with RawScan(raw) as scan:
        assert scan.acquisition_count == len(list(scan.acquisitions())) == 2 * 56
    twin = write_twin(tmp_path / "i.h5", data, PADDED, range(4, 60), first=4)
    for found, expected in zip(images(raw, tmp_path / "out"), images(twin, tmp_path / "twin"), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_zeros_that_the_header_does_not_know_of(tmp_path):
    """A zero-filled array whose matrix the header does not have: the centre is in the middle of the array."""
    raw = write_fastmri(tmp_path / "f.h5", np.pad(two_slices(), ((0, 0), (0, 0), (6, 6), (0, 0))), header())
    datasets = replay(raw, tmp_path / "out")[1]
    assert marker(datasets[0]) == pytest.approx(MARKER, abs=0.2)


@pytest.mark.slow
def test_lines_of_a_mask(tmp_path):
    data = two_slices()
    steps = [step for step in range(64) if step % 2 == 0 or 20 <= step < 44]
    mask = np.isin(np.arange(64), steps)
    raw = write_fastmri(tmp_path / "f.h5", data * mask[:, None], header(), mask=mask.astype(np.float32))
    full = write_fastmri(tmp_path / "full.h5", data, header(), mask=mask[None, None, :, None])
    twin = images(write_twin(tmp_path / "i.h5", data, steps=steps), tmp_path / "twin")
    for path in (raw, full):
        with RawScan(path) as scan:
            assert scan.acquisition_count == len(scan.heads()) == 2 * len(steps)
        for found, expected in zip(images(path, tmp_path / path.stem), twin, strict=True):
            np.testing.assert_array_equal(found, expected)
    assert f"{2 * (64 - len(steps))} lines that have samples are not in the mask" in str(describe(full))


def test_one_coil_has_no_axis(tmp_path):
    system = "<acquisitionSystemInformation><receiverChannels>4</receiverChannels></acquisitionSystemInformation>"
    text = header().replace("<experimentalConditions>", system + "<experimentalConditions>")  # of the coils before
    raw = write_fastmri(tmp_path / "f.h5", two_slices()[:, 0], text)
    with RawScan(raw) as scan:
        found = next(scan.acquisitions())
        assert scan.header.acquisitionSystemInformation.receiverChannels == 1
    np.testing.assert_array_equal(found.data, two_slices()[0, :1, 0])
    assert len(images(raw, tmp_path / "out")) == 2


def test_a_slice_without_samples_is_named(tmp_path):
    data = np.concatenate([two_slices()[:1], np.zeros_like(two_slices()[:1]), two_slices()[1:]])
    result, datasets = replay(write_fastmri(tmp_path / "f.h5", data, header()), tmp_path / "out")
    assert [float(dataset.ImagePositionPatient[2]) for dataset in datasets] == [0.0, 2 * SPACING]
    assert any("there is no image: 1" in text for text in result.warnings)


def test_a_3d_header_of_slices(tmp_path):
    """The array is one of slices, whatever the header says of partitions and of other counters."""
    text = header(encoded=(128, 64, 2), encoded_extent=(300, 150, 10), limits={"repetition": (0, 9, 0)})
    raw = write_fastmri(tmp_path / "f.h5", two_slices(), text)
    datasets = replay(raw, tmp_path / "out")[1]
    assert len(datasets) == 2 and float(datasets[0].SliceThickness) == 5
    assert marker(datasets[0]) == pytest.approx(MARKER, abs=0.2)


@pytest.mark.slow
def test_its_identity(tmp_path):
    text = header(identity=False, protocol="")
    raw = write_fastmri(tmp_path / "f.h5", two_slices(), text, patient_id="a1b2", acquisition="AXT2")
    dataset = replay(raw, tmp_path / "out")[1][0]
    assert (dataset.PatientID, dataset.ProtocolName) == ("a1b2", "AXT2")
    hidden = replay(raw, tmp_path / "hidden", "dicom_output.anonymize=true")[1][0]
    assert "a1b2" not in str(hidden) + str(describe(raw))
    named = write_fastmri(tmp_path / "n.h5", two_slices(), header(), patient_id="a1b2")
    assert replay(named, tmp_path / "named")[1][0].PatientID == "P1"


def test_chosen_lines_and_heads(tmp_path):
    with RawScan(write_fastmri(tmp_path / "f.h5", two_slices(), header())) as scan:
        heads = scan.heads()
        found = list(scan.acquisitions(heads["idx"]["slice"] == 1))
    assert heads["number_of_samples"].tolist() == [128] * 128
    assert [line.idx.kspace_encode_step_1 for line in found] == list(range(64))
    np.testing.assert_array_equal(found[5].data, two_slices()[1, :, 5])


def test_one_slice_is_in_memory_at_a_time(tmp_path):
    data = np.concatenate([two_slices()] * 8)
    with RawScan(write_fastmri(tmp_path / "f.h5", data, header())) as scan:
        tracemalloc.start()
        for _ in scan.acquisitions():
            pass
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 4 * data[0].nbytes < data.nbytes


def test_info_names_the_format(tmp_path):
    rows = dict(describe(write_fastmri(tmp_path / "f.h5", padded(two_slices()), PADDED)))
    assert rows["file"].startswith("fastMRI, kspace 2 x 4 x 128 x 64 (slice, coil, readout, phase)")
    assert rows["phase encodings"] == "56 in columns 4..59 of 64; the header's limits are 0..55 (centre 28)"


def test_readout_and_phase_the_other_way_round(tmp_path):
    """ismrmrd/mrd#69: files of this layout whose last axis is the readout; the header's matrix tells."""
    mask = np.arange(64) != 7
    raw = write_fastmri(tmp_path / "f.h5", two_slices().swapaxes(2, 3), header(), mask=mask)
    with RawScan(raw) as scan:
        assert [line.idx.kspace_encode_step_1 for line in scan.acquisitions()] == 2 * np.flatnonzero(mask).tolist()
    result, datasets = replay(raw, tmp_path / "out")
    assert marker(datasets[0]) == pytest.approx(MARKER, abs=0.2)
    assert any("it is taken for that" in text for text in result.warnings)
    assert "2 x 4 x 64 x 128 (slice, coil, phase, readout)" in str(describe(raw))


@pytest.mark.slow
def test_averages_that_sample_different_lines(tmp_path):
    """The prostate data: averages are the first axis, each has every second line."""
    data = np.stack([two_slices()] * 3)
    data[0::2, :, :, 1::2] = 0
    data[1, :, :, 0::2] = 0
    raw = write_fastmri(tmp_path / "f.h5", data, header(limits=SLICES))
    with RawScan(raw) as scan:
        found = [(line.idx.slice, line.idx.average, line.idx.kspace_encode_step_1) for line in scan.acquisitions()]
        assert scan.header.encoding[0].encodingLimits.average.maximum == 2
    steps = [range(0, 64, 2), range(1, 64, 2), range(0, 64, 2)]
    assert found == [(s, average, step) for s in range(2) for average in range(3) for step in steps[average]]
    datasets = replay(raw, tmp_path / "out")[1]
    assert len(datasets) == 2
    full = images(write_twin(tmp_path / "i.h5", two_slices()), tmp_path / "twin")
    for dataset, image in zip(datasets, full, strict=True):
        np.testing.assert_allclose(pixels(dataset), image, atol=0.02 * image.max())


def test_limits_that_the_lines_do_not_keep(tmp_path):
    rows = describe(write_fastmri(tmp_path / "f.h5", two_slices(), PADDED))
    assert "its phase encodings are in columns 0..63, by the header's limits in 4..59" in str(rows)
    result, datasets = replay(tmp_path / "f.h5", tmp_path / "out")
    assert marker(datasets[0]) == pytest.approx(MARKER, abs=0.2)
    assert any("the k-space centre is taken to be column 32" in text for text in result.warnings)


@pytest.mark.parametrize(
    ("data", "text", "more", "message"),
    [
        (two_slices(), None, {}, "it has kspace and no ismrmrd_header"),
        (two_slices()[0, 0], header(), {}, "kspace is 128 x 64 of complex64; that of a fastMRI file is complex"),
        (two_slices()[None, None], header(), {}, "kspace is 1 x 1 x 2 x 4 x 128 x 64 of complex64; that of a fastMRI"),
        (two_slices()[:0], header(), {}, "kspace is 0 x 4 x 128 x 64 of complex64"),
        (two_slices(), header(), {"mask": np.ones(63)}, "mask is 63 of float64, kspace has 64 phase encodings"),
        (two_slices(), header(), {"mask": np.zeros(64)}, "no phase encoding of its mask has samples"),
        (two_slices() * 0, header(), {}, "it has no acquisitions"),
        (two_slices() * np.nan, header(), {}, "NaN or infinite"),
        (two_slices(), "<no header", {}, "its ISMRMRD header cannot be read"),
        (two_slices(), header(trajectory="spiral"), {}, "is spiral"),
        (two_slices(), header(encoded=(100, 64, 1)), {}, "128 samples"),
    ],
)
def test_what_does_not_hold_together(tmp_path, data, text, more, message):
    raw = write_fastmri(tmp_path / "f.h5", data, text, **more)
    with pytest.raises(ReconError, match=message) as caught, RawScan(raw) as scan:
        list(scan.acquisitions())
    assert "\n" not in str(caught.value) and "array(" not in str(caught.value)


def test_slices_and_coils_in_the_other_order(tmp_path):
    system = "<acquisitionSystemInformation><receiverChannels>4</receiverChannels></acquisitionSystemInformation>"
    text = header(limits=SLICES).replace("<experimentalConditions>", system + "<experimentalConditions>")
    with pytest.raises(ReconError, match="the header has 4 coils and 2 slices; reorder it"):
        RawScan(write_fastmri(tmp_path / "f.h5", two_slices().swapaxes(0, 1), text))
    raw = write_fastmri(tmp_path / "three.h5", two_slices()[:, :3], text)
    assert "the header has 4 coils, kspace has 3" in str(describe(raw))


def test_a_truncated_file(tmp_path):
    raw = write_fastmri(tmp_path / "f.h5", two_slices(), header())
    raw.write_bytes(raw.read_bytes()[:-1000])
    with pytest.raises(ReconError, match="truncated"):
        RawScan(raw)
    raw = write_fastmri(tmp_path / "no_array.h5", kspace(), header())
    with h5py.File(raw, "a") as file:
        del file["kspace"]
    with pytest.raises(ReconError, match="but no kspace"):
        RawScan(raw)

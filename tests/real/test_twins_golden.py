"""The twins against what a real Gadgetron 4.7.2 handed to a Python gadget for the same raw files."""

from __future__ import annotations

import ismrmrd
import numpy as np
import pytest

from gadgets.twins import (
    AcquisitionAccumulateTriggerGadget,
    AsymmetricEchoAdjustROGadget,
    BucketToBufferGadget,
    NoiseAdjustGadget,
    RemoveROOversamplingGadget,
)

READOUT_GADGETS = (NoiseAdjustGadget, AsymmetricEchoAdjustROGadget, RemoveROOversamplingGadget)


def read(path):
    with ismrmrd.Dataset(str(path), mode="r") as dataset:
        header = ismrmrd.xsd.CreateFromDocument(dataset.read_xml_header())
        return header, [dataset.read_acquisition(i) for i in range(dataset.number_of_acquisitions())]


def run(header, items, *gadgets):
    for kind, properties in gadgets:
        gadget = kind()
        gadget.configure(header, properties)
        items = gadget.process(iter(items))
    return list(items)


def relative_error(result, expected):
    return np.linalg.norm(result - expected) / np.linalg.norm(expected)


@pytest.fixture(scope="module")
def buffering():
    return (
        (AcquisitionAccumulateTriggerGadget, {"trigger_dimension": "repetition"}),
        (BucketToBufferGadget, {"split_slices": "true"}),
    )


def test_siemens_acquisitions_before_buffering(real_data):
    header, lines = read(real_data / "siemens_skyra_r3.h5")
    golden = np.load(real_data / "golden" / "siemens_skyra_r3.npz")
    result = run(header, lines, *((kind, {}) for kind in READOUT_GADGETS))
    assert relative_error(np.stack([line.data for line in result]), golden["acquisitions"]) <= 1e-5
    assert [line.idx.kspace_encode_step_1 for line in result] == golden["kspace_encode_step_1"].tolist()
    assert [line.center_sample for line in result] == golden["center_sample"].tolist()


@pytest.mark.parametrize("name", ["siemens_skyra_r3", "shepp_logan_r2"])
def test_buffers_match_the_servers(real_data, buffering, name):
    raw = real_data / "siemens_skyra_r3.h5" if name.startswith("siemens") else real_data / "golden" / f"{name}.h5"
    golden = np.load(real_data / "golden" / f"{name}.npz")
    header, lines = read(raw)
    result = run(header, lines, *((kind, {}) for kind in READOUT_GADGETS), *buffering)
    bits = [bit for recon_data in result for bit in recon_data.bits]
    data = golden["data"] if golden["data"].ndim == 8 else golden["data"][None]
    ref = golden["ref"] if golden["ref"].ndim == 8 else golden["ref"][None]
    assert len(bits) == len(data)
    for bit, expected_data, expected_ref in zip(bits, data, ref, strict=True):
        assert relative_error(bit.data.data, expected_data) <= 1e-5
        assert relative_error(bit.ref.data, expected_ref) <= 1e-5
        for buffer, limits in ((bit.data, golden["limits"]), (bit.ref, golden["ref_limits"])):
            assert [list(limit) for limit in buffer.sampling.sampling_limits] == limits.tolist()
        assert list(bit.data.sampling.encoded_matrix) == golden["enc_matrix"].tolist()
        assert list(bit.data.sampling.recon_matrix) == golden["rec_matrix"].tolist()
        assert np.allclose(bit.data.sampling.encoded_FOV, golden["enc_fov"])
        assert np.allclose(bit.data.sampling.recon_FOV, golden["rec_fov"])

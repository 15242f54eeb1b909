"""Two reconstructions of one scan are one DICOM series when their chains make the same images, else two."""

from __future__ import annotations

import pydicom
import pytest

from gadgets.dicom.parameters import DicomParameters
from gadgets.dicom_output import dicom_datasets
from gadgets.images import meta_of, meta_values
from gadgets.stream.digest import CHAIN_DIGEST, settings_digest
from pipelines.chain import Chain, read_chain
from pipelines.raw import RawScan
from pipelines.replay import DICOM_MODULE, configured_chain, read_images, replay
from pipelines.simulation import SimulationSettings, simulate, write_raw

OTHER_IMAGES = [
    "NoiseAdjustGadget.perform_noise_adjust=false",
    "BucketToBufferGadget.ignore_segment=false",
    "coil_compression.energy=0.9",
    "espirit.map_sets=1",
    "generative_recon.regularisation=0.1",
    "generative_recon.intensity=1000",
    "FloatToUShortGadget.max_intensity=4095",
]
SAME_IMAGES = [
    "espirit.kernel=6",  # the default, written out
    "coil_compression.energy=0.00",
    "generative_recon.device=cpu",
    "generative_recon.time_budget_s=10",
    "generative_recon.slices_at_once=4",
    "BucketToBufferGadget.verbose=true",
    "dicom_output.pacs=dicom://PACS@host:104",
    "dicom_output.anonymize=true",
]


def digest(*settings: str) -> str:
    return configured_chain("cg_sense", list(settings)).digest()


@pytest.mark.parametrize("setting", OTHER_IMAGES)
def test_what_changes_images_changes_the_digest(setting):
    assert digest(setting) != digest()


@pytest.mark.parametrize("setting", SAME_IMAGES)
def test_what_does_not_change_images_does_not_change_the_digest(setting):
    assert digest(setting) == digest()


def test_members_in_processes_of_their_own_are_the_same_chain():
    assert read_chain("l1_wavelet").digest() == read_chain("l1_wavelet_separate").digest()


def test_gadgets_of_a_real_gadgetron_and_behind_connect_count_as_written():
    text = """<configuration><version>2</version><stream>
        <gadget><dll>x</dll><classname>NoTwinGadget</classname><property name="a" value="1"/></gadget>
        <external><connect address="localhost" port="18000"/>
            <configuration><property name="b" value="2"/></configuration></external>
        </stream></configuration>"""
    assert Chain(text, "one").digest() == Chain(text.replace("18000", "18001"), "two").digest()
    for old, new in (("NoTwin", "Other"), ('value="1"', 'value="3"'), ('value="2"', 'value="3"')):
        assert Chain(text, "one").digest() != Chain(text.replace(old, new), "two").digest()


def test_the_order_of_gadgets_counts_but_not_that_of_properties():
    first, second = ("A", {"x": 1, "y": 2}), ("B", {})
    assert settings_digest([first, second]) != settings_digest([second, first])
    assert settings_digest([first]) == settings_digest([("A", {"y": 2, "x": 1})])


# --- through to the files -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    path = tmp_path_factory.mktemp("raw") / "scan.h5"
    scan = SimulationSettings(
        matrix=(24, 24, 1), coils=4, sampling="uniform", acceleration=2, calibration_lines=12, noise_scan=True,
        noise_level=0.01,
    )  # fmt: skip
    write_raw(path, simulate(scan))
    return path


def series_of(folder):
    """SeriesInstanceUIDs of the DICOM files below a folder."""
    return {pydicom.dcmread(path).SeriesInstanceUID for path in folder.rglob("*.dcm")}


def replayed(raw, folder, *settings, **options):
    replay(raw, "cg_sense", folder, settings=["generative_recon.iterations=2", *settings], **options)
    (uid,) = series_of(folder)
    return uid


def test_a_replay_gives_the_same_series_and_other_settings_give_another(raw, tmp_path):
    first = replayed(raw, tmp_path / "0")
    assert replayed(raw, tmp_path / "1", "BucketToBufferGadget.verbose=true") == first
    others = ("espirit.crop=0.4", "coil_compression.energy=0.9", "generative_recon.intensity=1000")
    found = [replayed(raw, tmp_path / f"other{n}", setting) for n, setting in enumerate(others)]
    found.append(replayed(raw, tmp_path / "noise", "NoiseAdjustGadget.perform_noise_adjust=false"))
    assert len({first, *found}) == 1 + len(found)


def test_a_chain_that_writes_dicom_itself_gives_the_series_of_a_replay(raw, tmp_path):
    chain = configured_chain("cg_sense", ["generative_recon.iterations=2"])
    chain.external(DICOM_MODULE).properties["folder"] = str(tmp_path / "own")
    with RawScan(raw) as scan:
        list(chain.run(scan.header, scan.acquisitions()))
    assert series_of(tmp_path / "own") == {replayed(raw, tmp_path / "replay")}


@pytest.mark.slow
def test_images_bring_the_settings_of_another_process(raw, tmp_path):
    """As on a real Gadgetron, whose DICOM process knows nothing of the others."""
    uids = []
    for number, setting in enumerate(("espirit.crop=0", "espirit.crop=0.5")):
        folder = tmp_path / str(number)
        replayed(raw, folder, setting, processes=True)
        (image,) = read_images(folder, 1)
        (brought,) = meta_values(meta_of(image.attribute_string), CHAIN_DIGEST)
        assert len(brought) == 32
        with RawScan(raw) as scan:
            (ds,) = dicom_datasets(image, scan.header, DicomParameters(), warn=lambda _: None)
        uids.append(ds.SeriesInstanceUID)
    assert uids[0] != uids[1]
    assert replayed(raw, tmp_path / "in process", "espirit.crop=0.5") in series_of(tmp_path / "1")

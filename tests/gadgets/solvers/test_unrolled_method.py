"""The method `unrolled` in the gadget: its weights, its warnings, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gadgets.buffers import sampled
from gadgets.images import meta_of, meta_values
from gadgets.reconstruction import Reconstruction
from gadgets.stream import ReconError
from pipelines.chain import read_chain
from pipelines.simulation import SimulationSettings, simulate
from priors.learning.checkpoints import shipped_checkpoint
from tests.unrolled_weights import write_unrolled

BASE: dict[str, Any] = {
    "matrix": (32, 32, 1), "coils": 4, "sampling": "uniform", "acceleration": 2, "calibration_lines": 12,
}  # fmt: skip


def buffered(**changes: Any) -> tuple[Any, list[Any]]:
    """Header and ReconData as they reach the reconstruction gadgets."""
    simulation = simulate(SimulationSettings(**{**BASE, **changes}))
    chain = read_chain("cg_sense")
    names = [node.names[0] for node in chain.nodes]
    del chain.nodes[names.index("reconstruction") :]
    return simulation.header, list(chain.run(simulation.header, simulation.acquisitions()))


def run(header: Any, items: list[Any], **properties: Any) -> list[Any]:
    gadget = Reconstruction()
    names = {f"generative_recon.{name}": str(value) for name, value in properties.items()}
    gadget.configure(header, names | {"generative_recon.method": "unrolled"})
    return list(gadget.process(iter(items)))


def found(array: Any, name: str) -> list[str]:
    return [text for meta in array.meta for text in meta_values(meta_of(meta), name)]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    _, items = buffered()
    bit = items[0].bits[0]
    lines = torch.from_numpy(np.zeros((32, 32), bool))
    for part in (bit.data.data, bit.ref.data):
        mask = sampled(part[..., 0, 0, 0])[0]
        lines[: len(mask)] |= mask
    return write_unrolled(tmp_path_factory.mktemp("weights") / "tiny.safetensors", lines)


def test_slices_and_what_the_images_say(weights: Path) -> None:
    header, items = buffered(slices=2, noise_level=0.001)
    arrays = run(header, items, prior=weights)
    assert len(arrays) == 2 and all(np.abs(array.data).max() > 0 for array in arrays)
    assert found(arrays[0], "GenreconTrainedFor") == ["uniform:2, R = 1.45, 32 x 32"]
    assert "prior=tiny:00000000:0" in found(arrays[0], "GenreconSettings")[0]
    assert not [text for array in arrays for text in found(array, "GenreconWarning") if "trained for" in text]


def test_a_warning_for_another_acceleration(weights: Path) -> None:
    header, items = buffered(acceleration=4)
    (array,) = run(header, items, prior=weights)
    (warning,) = [text for text in found(array, "GenreconWarning") if "trained for" in text]
    assert warning.startswith(
        "unrolled was trained for uniform:2, R = 1.45, 32 x 32; these data have another mask, R = "
    )
    header, items = buffered(matrix=(24, 24, 1))
    (array,) = run(header, items, prior=weights)
    assert "these data have a matrix of 24 x 24" in " ".join(found(array, "GenreconWarning"))


def test_what_it_refuses(weights: Path, tmp_path: Path) -> None:
    header, items = buffered()
    for properties, message in (
        (
            {},
            r"method unrolled needs weights for the mask of your scans; train them \(genrecon train unrolled",
        ),
        ({"prior": tmp_path / "none.safetensors"}, "none.safetensors cannot be read"),
        ({"prior": shipped_checkpoint("wkgm")}, "weights of kind 'wkgm' are not for method unrolled; take method wkgm"),
        ({"prior": weights, "data_consistency": "low_rank"}, "'data_consistency' means nothing to method unrolled"),
        ({"prior": weights, "samples": 4}, "'samples' means nothing to method unrolled"),
        ({"prior": weights, "device": "cuda:99"}, "device 'cuda:99' is not there"),
    ):
        with pytest.raises(ReconError, match=message) as caught:
            run(header, items, **properties)
        assert "\n" not in str(caught.value)


def test_volumes_are_refused(weights: Path) -> None:
    header, items = buffered(matrix=(16, 24, 16), object_scale=0.6)
    with pytest.raises(ReconError, match="method unrolled is trained for 2D slices and this scan is a volume"):
        run(header, items, prior=weights)


def test_its_weights_are_no_prior(weights: Path) -> None:
    header, _ = buffered()
    gadget = Reconstruction()
    with pytest.raises(ReconError, match="are a reconstruction and no prior; take method unrolled"):
        gadget.configure(header, {"generative_recon.method": "wkgm", "generative_recon.prior": str(weights)})


@pytest.mark.parametrize("name", ["unrolled", "unrolled_ssdu"])
def test_weights_of_the_package_are_named_without_a_path(name: str) -> None:
    header, items = buffered()
    (array,) = run(header, items, prior=name)
    assert found(array, "GenreconTrainedFor") == ["poisson_4, R = 3.99, 256 x 256"]
    assert f"prior={name}:" in found(array, "GenreconSettings")[0]
    assert "these data have a matrix of 32 x 32" in " ".join(found(array, "GenreconWarning"))

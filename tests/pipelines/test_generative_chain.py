"""The chain `generative`: every method by a property, and one clear line where a method has no weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gadgets.images import meta_of, meta_values
from gadgets.stream import ReconError
from pipelines.chain import read_chain
from pipelines.simulation import SimulationSettings, simulate
from priors.registry import METHODS, generative_method, has_weights, with_variant

SCAN = SimulationSettings(matrix=(32, 32, 1), coils=4, sampling="uniform", acceleration=2, calibration_lines=12)
NAMES = [
    (name, variant) for name in METHODS for variant in ("", *generative_method(name).variants)
]  # fmt: skip
WITH_WEIGHTS = [pair for pair in NAMES if has_weights(with_variant(*pair))]


def images(**properties: Any) -> list[Any]:
    simulation = simulate(SCAN)
    chain = read_chain("generative")
    node = next(node for node in chain.nodes if "reconstruction" in node.names)
    node.properties |= {f"generative_recon.{name}": str(value) for name, value in properties.items()}
    return list(chain.run(simulation.header, simulation.acquisitions()))


@pytest.mark.parametrize(("name", "variant"), WITH_WEIGHTS)
def test_methods_with_weights(name: str, variant: str) -> None:
    (image,) = images(method=name, variant=variant, steps=8)
    meta = meta_of(image.attribute_string)
    assert meta_values(meta, "GenreconMethod") == [name] and not meta_values(meta, "GenreconFallback")
    assert image.data.dtype == np.uint16 and image.data.max() > 1000


@pytest.mark.parametrize(("name", "variant"), [pair for pair in NAMES if pair not in WITH_WEIGHTS])
def test_methods_without_weights_say_how_to_train_them(name: str, variant: str) -> None:
    with pytest.raises(ReconError, match=r"no weights come with it; learn them \(genrecon train ") as caught:
        images(method=name, variant=variant)
    text = str(caught.value)
    kind = text.partition("genrecon train ")[2].partition(")")[0]
    assert "\n" not in text and generative_method(kind).recipe is not None
    assert text.endswith("and name them by the property prior")


def test_an_unrolled_network_needs_weights_of_its_own() -> None:
    with pytest.raises(
        ReconError,
        match=r"method unrolled needs weights for the mask of your scans; train them .*genrecon train unrolled",
    ):
        images(method="unrolled")

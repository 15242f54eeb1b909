"""The documentation's example of a gadget outside the package, in a chain of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipelines.chain import shipped_xml
from pipelines.replay import read_images, replay
from pipelines.simulation import SimulationSettings, simulate, write_raw
from tests.paths import ROOT

PAGE = (ROOT / "docs" / "add_a_gadget.md").read_text()
EXAMPLE = ROOT / "docs" / "examples" / "hann_filter.py"


def test_the_page_shows_the_gadget_that_runs() -> None:
    assert EXAMPLE.read_text().rstrip() in PAGE


@pytest.mark.slow
def test_the_gadget_filters_images_where_the_page_puts_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(EXAMPLE.parent)
    external = PAGE.partition("```xml\n")[2].partition("```")[0]
    before = "<gadget><dll>gadgetron_mricore</dll><classname>ComplexToFloatGadget</classname></gadget>"
    chain = tmp_path / "filtered.xml"
    chain.write_text(shipped_xml("cg_sense").decode().replace(before, external + before))
    raw = tmp_path / "scan.h5"
    write_raw(raw, simulate(SimulationSettings(matrix=(32, 32, 1), coils=4, sampling="full")))

    def outer(config: str, *settings: str) -> float:
        """Share of the image's k-space that is in its outer half."""
        replay(raw, config, tmp_path / "out", settings=list(settings))
        (image,) = read_images(tmp_path / "out", series=1)
        power = np.abs(np.fft.fftshift(np.fft.fft2(image.data[0, 0]))) ** 2
        return float(1 - power[8:24, 8:24].sum() / power.sum())

    plain, half, whole = outer("cg_sense"), outer(str(chain)), outer(str(chain), "hann_filter.width=1")
    assert 0 < whole < half < 0.7 * plain

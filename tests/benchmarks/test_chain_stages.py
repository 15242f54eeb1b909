"""What each stage of a chain costs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import chain_stages


@pytest.mark.slow
def test_a_row_a_stage_and_a_column_a_scan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    y, x = np.mgrid[-1:1:64j, -1:1:64j]
    discs = np.stack([200.0 * (np.hypot(y, x) < radius) for radius in (0.5, 0.7)])
    np.save(tmp_path / "mr_magnitude.npy", discs.astype(np.uint8))
    monkeypatch.setattr(chain_stages, "SLICES", (0, 1))
    scans = list(chain_stages.scans(tmp_path, 64, ["random:2", "uniform:2"], [6], [0.01]))
    assert [scan.settings.sampling for scan in scans] == ["random", "uniform"]
    table = chain_stages.table_of("cg_sense", scans)
    first, *columns = (list(column.cells) for column in table.columns)
    assert first == ["whole chain", *chain_stages.STAGES] and len(columns) == 2
    for whole, *differences in columns:
        assert float(whole) > 25
        assert all(abs(float(text)) < 5 for text in differences)
        assert abs(float(differences[-1])) < 0.05  # 16 bits are enough


def test_stages_are_changed_one_at_a_time() -> None:
    _, settings = chain_stages.changed("cg_sense", "maps not cropped, or cropped at 0.5")
    assert settings == ["espirit.crop=0"]
    _, settings = chain_stages.changed("l1_wavelet", "maps not cropped, or cropped at 0.5")
    assert settings == ["espirit.crop=0.5"]
    chain, settings = chain_stages.changed("svd_wkgm", "16-bit images")
    assert not settings and all("FloatToUShortGadget" not in node.names for node in chain.nodes)

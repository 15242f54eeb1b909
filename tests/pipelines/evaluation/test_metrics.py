"""Image quality of known differences."""

from __future__ import annotations

import numpy as np
import pytest
import sigpy

from gadgets.stream import ReconError
from pipelines.evaluation.metrics import measures
from pipelines.evaluation.summary import check_metrics


def test_metrics_of_known_differences():
    reference = np.abs(sigpy.shepp_logan((64, 64))).astype(np.float32)
    same = measures(reference, reference + 0)
    assert (
        same["ssim"] == pytest.approx(1)
        and same["psnr"] == 200
        and same["nrmse"] == same["hfen"] == same["hfen_object"] == 0
    )
    shifted = measures(reference + 0.01, reference)
    assert shifted["psnr"] == pytest.approx(40, abs=0.01) == shifted["psnr_object"]
    assert shifted["hfen"] == pytest.approx(0, abs=1e-4)  # a constant has no edges
    assert shifted["nrmse"] == pytest.approx(0.01 * 64 / np.linalg.norm(reference), rel=1e-3)
    outside = reference + 0.1 * (reference <= 0.05)
    assert measures(outside, reference)["nrmse_object"] == 0 < measures(outside, reference)["nrmse"]


def test_unknown_metric():
    assert check_metrics("psnr, hfen_object") == ["psnr", "hfen_object"]
    with pytest.raises(ReconError, match="there is no metric 'mse'; there are psnr, ssim"):
        check_metrics("psnr,mse")

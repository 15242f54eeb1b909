"""Comparison of NIfTI images."""

from __future__ import annotations

from typing import Any

import nibabel
import numpy as np


def assert_same_voxels(ours: Any, theirs: Any) -> None:
    """Two NIfTI images have the same values at the same places of the patient, in the same order of volumes.

    dcm2niix turns the axes of 3D scans, but not of 2D ones, to the patient's: both are compared in that order of axes.
    """
    for key in ("qform_code", "sform_code"):
        assert ours.header[key] == theirs.header[key] == 1
    ours, theirs = nibabel.as_closest_canonical(ours), nibabel.as_closest_canonical(theirs)
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours.affine, theirs.affine, atol=2e-4)
    np.testing.assert_allclose(ours.get_fdata(), theirs.get_fdata(), rtol=1e-6, atol=1e-6 * theirs.get_fdata().max())
    np.testing.assert_allclose(ours.header.get_zooms()[:3], theirs.header.get_zooms()[:3], rtol=1e-5)

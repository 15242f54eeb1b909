"""Makes pipelines/simulation/data/colin27.npz, the brain of the demo, from Debian's package mricron-data.

    apt-get download mricron-data && dpkg-deb --extract mricron-data_*.deb extracted
    python docs/make_brain.py extracted/usr/share/mricron/templates/ch2.nii.gz

Needs nibabel (extra nifti).
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import nibabel
import numpy as np

PLANES = (44, 61, 78, 95, 112)  # of the volume's third axis, 1 mm apart
AVERAGED = 3  # planes a slice
FIELD_OF_VIEW = 224  # mm, and pixels
VOLUME_SHA256 = "f5a6ac5d280552d299bc4fb0e6724485f25bad45f69117e87fa5880ebdcce7af"
OUT = Path(__file__).parents[1] / "pipelines" / "simulation" / "data" / "colin27.npz"


def main() -> None:
    path = Path(sys.argv[1])
    content = np.asanyarray(nibabel.load(path).dataobj)  # [right, anterior, superior], uint8, 1 mm
    digest = hashlib.sha256(content.tobytes()).hexdigest()
    if digest != VOLUME_SHA256:
        sys.exit(f"{path}: another volume (SHA-256 {digest}); take that of mricron-data 1.2.20211006")
    half = AVERAGED // 2
    slices = np.stack([content[:, :, plane - half : plane + half + 1].mean(-1) for plane in PLANES])
    slices = np.rint(slices).astype(np.uint8)[:, ::-1, ::-1].swapaxes(1, 2)  # rows from anterior, columns from right
    missing = [FIELD_OF_VIEW - length for length in slices.shape[1:]]
    slices = np.pad(slices, [(0, 0), *((lines // 2, lines - lines // 2) for lines in missing)])
    np.savez_compressed(OUT, slices=slices)
    print(f"{OUT.name}: {slices.shape}, {OUT.stat().st_size} bytes")


if __name__ == "__main__":
    main()

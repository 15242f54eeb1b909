"""BART's `pics` by its command line, as a comparator: it runs where the `bart` program is installed."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gadgets.stream import ReconError
from gadgets.stream.processes import killed_with_parent

# BART's axes: 0 to 2 space, 3 coils, 4 sets of maps; arrays are stored with the first axis fastest.


def bart_pics(
    kspace: Tensor, maps: Tensor, mask: Tensor, regularisation: float = 2e-3, iterations: int = 100
) -> Tensor:
    r"""L1-wavelet ESPIRiT reconstruction by `bart pics`.

    Parameters
    ----------
    kspace : Tensor
        Measured k-space, complex, shape (batch, coil, y, x), of signal level 1; samples outside the mask are not looked
        at.
    maps : Tensor
        Coil maps, complex, shape (batch, set, coil, y, x).
    mask : Tensor
        Sampling mask (bool), shape (batch, 1, y, x) or broadcasting to it.
    regularisation : float
        Weight of the wavelet coefficients' 1-norm, in the scale of BART (which divides by the image's level).
    iterations : int
        Most iterations.

    Returns
    -------
    Tensor
        Complex images, shape (batch, set, y, x), in the units of the image of `kspace`.

    Raises
    ------
    ReconError
        If the program fails; with its last line of output.

    Notes
    -----
    Uecker et al., ISMRM 2013 (BART); :math:`\arg\min_x \frac12 \|P F S x - y\|_2^2 + \lambda \|W x\|_1`.
    """
    measured = torch.where(mask.to(torch.bool), kspace, 0)
    images = [_slice(*one, regularisation, iterations) for one in zip(measured, maps, strict=True)]
    return torch.from_numpy(np.stack(images)).to(kspace)


def _slice(kspace: Tensor, maps: Tensor, regularisation: float, iterations: int) -> np.ndarray:
    """Images (set, y, x) of one slice."""
    with tempfile.TemporaryDirectory(prefix="genrecon-bart-") as name:
        folder = Path(name)
        write_cfl(folder / "kspace", kspace.cpu().numpy().transpose(1, 2, 0)[:, :, None, :])
        write_cfl(folder / "maps", maps.cpu().numpy().transpose(2, 3, 1, 0)[:, :, None])
        command = ["bart", "pics", "-S", "-d0", f"-i{iterations}", f"-RW:3:0:{regularisation:g}"]
        command = killed_with_parent([*command, "kspace", "maps", "image"])
        try:
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        except OSError as error:
            raise ReconError(f"method bart_pics: bart cannot be run ({error.strerror}); install it again") from None
        if done.returncode:
            lines = (done.stderr or done.stdout).strip().splitlines() or ["no output"]
            raise ReconError(f"method bart_pics: bart failed with exit code {done.returncode}: {lines[-1]}")
        image = read_cfl(folder / "image")
    return np.ascontiguousarray(image.reshape(*image.shape[:2], -1).transpose(2, 0, 1))


def write_cfl(path: Path, array: np.ndarray) -> None:
    """Write an array as BART's pair of files, path.hdr and path.cfl."""
    path.with_suffix(".hdr").write_text(f"# Dimensions\n{' '.join(str(size) for size in array.shape)}\n")
    array.astype("<c8").ravel(order="F").tofile(path.with_suffix(".cfl"))


def read_cfl(path: Path) -> np.ndarray:
    """Read BART's pair of files, path.hdr and path.cfl, with all of its axes.

    Raises ValueError when the two do not fit together.
    """
    lines = path.with_suffix(".hdr").read_text().splitlines()
    shape = [int(size) for size in lines[1].split()]
    return np.fromfile(path.with_suffix(".cfl"), "<c8").reshape(shape, order="F")

"""Whole chains on the development scans, from raw file to 16-bit images: quality and seconds.

python -m benchmarks.whole_chains                                    # svd_wkgm at each quality, and other methods
python -m benchmarks.whole_chains --scans t1_4 --entries fast standard best
python -m benchmarks.whole_chains --before ../before                 # the chain of another checkout beside this one's

A fully sampled scan is undersampled and written as raw file; samples that a mask leaves out are zeros. Each entry is a
process of its own, which reads its weights in a first run that is not timed; then entries take turns. PSNR inside the
object of the root-sum-of-squares image of all samples, with the factor that fits best. Other methods with a
parameter get several values of it; the one with the highest PSNR counts. SigPy's L1-wavelet is no chain: it gets the
undersampled k-space as an array, and its best value for each slice.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import ismrmrd
import numpy as np
import torch
from ismrmrd import xsd
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks.wkgm import LAMBDAS, Scan, root_sum_of_squares, tuned_sigpy
from pipelines.evaluation.metrics import measures
from pipelines.replay import read_images
from pipelines.simulation import sampling
from priors.signal.fourier import fft2c

HERE = Path(__file__).resolve().parent.parent
BEFORE = "before"
SIGPY = "sigpy"
BART = "generative_recon.method=bart_pics"
METRICS = {"psnr_object": "PSNR object", "ssim_object": "SSIM object"}
console = Console(width=170)

_WORKER = """
import json, sys, time
import torch, priors
from pipelines.replay import replay
torch.set_num_threads(int(sys.argv[1]))
for line in sys.stdin:
    raw, chain, settings, folder = json.loads(line)
    start = time.perf_counter()
    try:
        replay(raw, chain, folder, settings=settings)
        print("done", time.perf_counter() - start, flush=True)
    except Exception as error:
        print("failed", str(error).replace("\\n", " "), flush=True)
"""


@dataclass(frozen=True)
class Case:
    """A scan and a mask.

    Parameters
    ----------
    name : str
    kspace : complex64 k-space (slice, coil, y, x), without gaps
    mask : bool (y, x)
    """

    name: str
    kspace: NDArray[np.complex64]
    mask: NDArray[np.bool_]

    def truth(self) -> NDArray[np.float64]:
        """Root-sum-of-squares images (slice, y, x), maximum 1 each."""
        images = root_sum_of_squares(torch.from_numpy(self.kspace)).double().numpy()
        scaled: NDArray[np.float64] = images / images.max((1, 2), keepdims=True)
        return scaled

    def write(self, path: Path) -> None:
        """Write the undersampled scan as raw file."""
        slices, coils, height, width = self.kspace.shape
        lines = np.flatnonzero(self.mask.any(1))
        with ismrmrd.Dataset(str(path), create_if_needed=True) as file:
            file.write_xml_header(_header(slices, coils, height, width))
            for number in range(slices):
                scale = 100 / np.abs(self.kspace[number]).max()
                for line in lines:
                    data = scale * self.kspace[number, :, line] * self.mask[line]
                    acquisition = ismrmrd.Acquisition.from_array(data.astype(np.complex64))
                    acquisition.center_sample = width // 2
                    acquisition.idx.kspace_encode_step_1, acquisition.idx.slice = int(line), number
                    acquisition.read_dir[0], acquisition.phase_dir[1], acquisition.slice_dir[2] = 1, 1, 1
                    acquisition.position[2] = 5.0 * number
                    acquisition.scan_counter = number * height + int(line)
                    if line == lines[0]:
                        acquisition.set_flag(ismrmrd.ACQ_FIRST_IN_SLICE)
                    if line == lines[-1]:
                        acquisition.set_flag(ismrmrd.ACQ_LAST_IN_SLICE)
                    file.append_acquisition(acquisition)


def _header(slices: int, coils: int, height: int, width: int) -> str:
    size, field = xsd.matrixSizeType(x=width, y=height, z=1), xsd.fieldOfViewMm(x=width, y=height, z=5)
    space = xsd.encodingSpaceType(matrixSize=size, fieldOfView_mm=field)
    lines = xsd.limitType(minimum=0, maximum=height - 1, center=height // 2)
    limits = xsd.encodingLimitsType(
        kspace_encoding_step_1=lines, slice=xsd.limitType(minimum=0, maximum=slices - 1, center=0)
    )
    encoding = xsd.encodingType(
        encodedSpace=space, reconSpace=space, encodingLimits=limits, trajectory=xsd.trajectoryType("cartesian")
    )
    system = xsd.acquisitionSystemInformationType(receiverChannels=coils)
    conditions = xsd.experimentalConditionsType(H1resonanceFrequency_Hz=123000000)
    header = xsd.ismrmrdHeader(
        experimentalConditions=conditions, acquisitionSystemInformation=system, encoding=[encoding]
    )
    text: str = xsd.ToXML(header)
    return text


def scans(data: Path) -> dict[str, NDArray[np.complex64]]:
    """Development scans by name, k-space (slice, coil, y, x)."""
    names = {"t1": "t1_ge_brain_4ch_kspace", "midas": "dev_midas_T1_7ch", "flash": "dev_pulseq_brain_16ch"}
    found = {name: np.load(data / f"{file}.npy")[None] for name, file in names.items()}
    found["knee"] = np.load(data / "dev_knee_1ch.npy")[None]
    slices = torch.from_numpy(np.load(data / "t2_brain_slices.npy")[::11])
    found["t2"] = fft2c(slices)[:, None].numpy()
    return {name: np.ascontiguousarray(array, np.complex64) for name, array in found.items()}


def mask_of(name: str, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Mask of PATTERN_ACCELERATION: poisson, random (lines), uniform (lines), 24 lines kept."""
    pattern, _, acceleration = name.partition("_")
    if pattern == "poisson":
        return sampling.poisson(shape, float(acceleration))
    if pattern == "random":
        return sampling.random_lines(shape, float(acceleration), 0)
    return sampling.uniform(shape, int(acceleration))


def cases(data: Path, wanted: Sequence[str]) -> Iterator[Case]:
    """Cases of SCAN:MASK."""
    all_scans, masks = scans(data), np.load(data / "masks.npz")
    for name in wanted:
        scan, _, mask = name.partition(":")
        kspace = all_scans[scan]
        shape = (kspace.shape[-2], kspace.shape[-1])
        stored = masks[mask] if mask in masks.files else None
        yield Case(name, kspace, stored if stored is not None and stored.shape == shape else mask_of(mask, shape))


CASES = tuple(
    f"{scan}:{mask}"
    for scan in ("t1", "midas", "flash", "knee", "t2")
    for mask in ("poisson_4", "poisson_10", "random_4", "random_10", "uniform_3")
)


@dataclass(frozen=True)
class Entry:
    """A chain with settings; of several settings the best by the truth counts.

    Parameters
    ----------
    chain : str
    settings : lists of settings
    checkout : folder of the code
    """

    chain: str
    settings: tuple[tuple[str, ...], ...] = ((),)
    checkout: Path = HERE


def _tuned(option: str, values: Sequence[object], *others: str) -> tuple[tuple[str, ...], ...]:
    return tuple((*others, f"generative_recon.{option}={value}") for value in values)


ENTRIES: dict[str, Entry] = {
    "fast": Entry("svd_wkgm", _tuned("quality", ["fast"])),
    "standard": Entry("svd_wkgm"),
    "best": Entry("svd_wkgm", _tuned("quality", ["best"])),
    "cg_sense": Entry("cg_sense", _tuned("regularisation", [1e-3, 1e-2, 3e-2])),
    "l1_wavelet": Entry("l1_wavelet", _tuned("regularisation", [1e-3, 3e-3, 1e-2])),
    "bart": Entry("l1_wavelet", _tuned("regularisation", [1e-3, 2e-3, 5e-3, 1e-2], BART)),
    "sake": Entry("sake", _tuned("rank", [40, 54, 72])),
    "grappa": Entry("grappa"),
}


class Runner:
    """A process that replays for one checkout."""

    def __init__(self, checkout: Path, threads: int) -> None:
        command = [sys.executable, "-c", _WORKER, str(threads)]
        self._process = subprocess.Popen(
            command, cwd=checkout, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )

    def seconds(self, raw: Path, entry: Entry, settings: Sequence[str], folder: Path) -> float:
        """Seconds of a replay. Raises RuntimeError where it fails."""
        assert self._process.stdin is not None and self._process.stdout is not None
        print(json.dumps([str(raw), entry.chain, list(settings), str(folder)]), file=self._process.stdin, flush=True)
        word, _, rest = self._process.stdout.readline().strip().partition(" ")
        if word != "done":
            raise RuntimeError(rest or "its process ended")
        return float(rest)

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()


def means(found: Sequence[dict[str, float]]) -> dict[str, float]:
    """Means of the measures that the table has."""
    return {name: float(np.mean([one[name] for one in found])) for name in METRICS}


def fitted_measures(pixels: NDArray[np.float64], true: NDArray[np.float64]) -> dict[str, float]:
    """Measures of an image (y, x) with the factor that fits best."""
    factor = (pixels * true).sum() / np.square(pixels).sum()
    return measures((factor * pixels).astype(np.float32), true.astype(np.float32))


def score(folder: Path, truth: NDArray[np.float64]) -> dict[str, float]:
    """Mean measures of the images of a replay."""
    found = []
    for image in read_images(folder, series=1):
        pixels, true = np.abs(image.data[0, 0]).astype(np.float64), truth[image.slice]
        if pixels.shape != true.shape:
            raise RuntimeError(f"an image of {pixels.shape} for {true.shape}")
        found.append(fitted_measures(pixels, true))
    if len(found) != len(truth):
        raise RuntimeError(f"{len(found)} images of {len(truth)} slices")
    return means(found)


def of_arrays(case: Case) -> dict[str, float]:
    """Mean measures of SigPy's L1-wavelet on the undersampled k-space, and seconds a slice of one value."""
    found, began = [], time.perf_counter()
    for kspace, true in zip(case.kspace, case.truth(), strict=True):
        image = tuned_sigpy(Scan(case.name, torch.from_numpy(kspace), torch.from_numpy(case.mask)))[1]
        found.append(fitted_measures(image.abs().double().numpy(), true))
    seconds = (time.perf_counter() - began) / len(found) / len(LAMBDAS)
    return means(found) | {"seconds": seconds}


def measured(case: Case, entries: dict[str, Entry], threads: int, rounds: int) -> dict[str, dict[str, float]]:
    """Measures and seconds a slice of every entry; an entry that fails is left out, with a line."""
    truth, results = case.truth(), {}
    with tempfile.TemporaryDirectory() as name:
        folder, runners = Path(name), {}
        case.write(folder / "scan.h5")
        for label, entry in entries.items():
            runners[label] = runner = Runner(entry.checkout, threads)
            try:
                tried = {}
                for index, settings in enumerate(entry.settings):
                    runner.seconds(folder / "scan.h5", entry, settings, folder / f"{label}{index}")
                    tried[settings] = score(folder / f"{label}{index}", truth)
                best = max(tried, key=lambda settings: tried[settings]["psnr_object"])
                results[label] = {**tried[best], "settings": best}
            except RuntimeError as error:
                console.print(f"{case.name}, {label}: {error}")
        times: dict[str, list[float]] = {label: [] for label in results}
        for turn in range(rounds):
            for label, result in results.items():
                out = folder / f"{label}-turn{turn}"
                times[label].append(
                    runners[label].seconds(folder / "scan.h5", entries[label], result["settings"], out) / len(truth)
                )
        for runner in runners.values():
            runner.close()
    for label, result in results.items():
        result["seconds"] = statistics.median(times[label]) if times[label] else float("nan")
    return results


def main() -> None:
    """Command line; see the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the development scans")
    parser.add_argument("--scans", nargs="+", default=list(CASES), metavar="SCAN:MASK")
    parser.add_argument("--entries", nargs="*", default=[*ENTRIES, SIGPY], choices=[*ENTRIES, SIGPY])
    parser.add_argument("--priors", nargs="+", type=Path, default=[], help="weights for svd_wkgm, an entry each")
    parser.add_argument("--before", type=Path, help="another checkout, whose chain svd_wkgm is measured too")
    parser.add_argument("--rounds", type=int, default=2, help="timed runs of each entry")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    entries = {label: ENTRIES[label] for label in arguments.entries if label != SIGPY}
    for path in arguments.priors:
        entries[path.stem] = Entry("svd_wkgm", ((f"generative_recon.prior={path.resolve()}",),))
    if arguments.before:
        entries = {BEFORE: Entry("svd_wkgm", checkout=arguments.before.resolve()), **entries}
    table = Table(title=f"PSNR and SSIM inside the object, seconds a slice ({arguments.threads} threads)")
    columns = [*entries, *([SIGPY] if SIGPY in arguments.entries else [])]
    for heading in ("scan", *columns):
        table.add_column(heading)
    ratios: dict[str, list[float]] = {label: [] for label in entries}
    for case in cases(arguments.data, arguments.scans):
        found = measured(case, entries, arguments.threads, arguments.rounds)
        if SIGPY in columns:
            found[SIGPY] = of_arrays(case)
        cells = [
            f"{one['psnr_object']:.2f} {one['ssim_object']:.3f} {one['seconds']:.2f}"
            if (one := found.get(label))
            else "-"
            for label in columns
        ]
        console.print(
            f"{case.name}: " + "; ".join(f"{label} {cell}" for label, cell in zip(columns, cells, strict=True))
        )
        table.add_row(case.name, *cells)
        for label, one in found.items():
            if BEFORE in found and label in ratios:
                ratios[label].append(found[BEFORE]["seconds"] / one["seconds"])
    console.print(table)
    if arguments.before:
        console.print(
            "times as fast as before: " + ", ".join(f"{k} {statistics.median(v):.2f}" for k, v in ratios.items())
        )


if __name__ == "__main__":
    main()

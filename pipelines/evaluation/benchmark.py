"""Benchmark: methods beside each other on fully sampled scans that are undersampled here."""

from __future__ import annotations

import contextlib
import csv
import ctypes
import datetime
import hashlib
import io
import json
import multiprocessing
import os
import platform
import shutil
import statistics
import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import sigpy.mri
import torch
from numpy.typing import NDArray
from rich.markup import escape
from rich.table import Table
from scipy.ndimage import gaussian_laplace
from skimage.metrics import structural_similarity

from gadgets.buffers import kspace_problems, sampled
from gadgets.coil_compression import CoilCompression
from gadgets.files import replace_file
from gadgets.solvers.generative_solver import GENERATIVE, prior_file
from gadgets.solvers.methods import METHODS
from gadgets.stream import ReconError, one_line
from pipelines.evaluation.arrays import ArrayReconstruction, check_fully_sampled, read_npy, scan_bits
from pipelines.evaluation.distribute import dask_client
from pipelines.simulation.sampling import PATTERNS
from priors.signal.fourier import fft2c, ifft2c

SMALLEST = 7  # samples along y and x
OBJECT = 0.05  # of the reference's maximum
SET_HERE = {"method", "intensity", "pixel_scale", "image_series"}
METRICS = ("psnr", "ssim", "nrmse", "hfen")
RESULTS = "results.json"
ATTEMPTS = 3  # rounds without any result, before tasks are tried one by one

Progress = Callable[[int, int, str], None]  # tasks done, tasks in all, the last one
Array = NDArray[Any]


# --- cases -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A fully sampled slice, a sampling mask and a noise level.

    Parameters
    ----------
    data : name of the scan
    slice : number of the slice in it
    mask_name : name of the mask
    noise : standard deviation of noise added to the measured samples, in each part, in units of the image's maximum
    kspace : complex64 (coil, y, x), its root-sum-of-squares image has maximum 1
    mask : bool (y, x)
    """

    data: str
    slice: int
    mask_name: str
    noise: float
    kspace: Array = field(repr=False)
    mask: Array = field(repr=False)

    @cached_property
    def identity(self) -> str:
        """Hash of all that the measured data depend on."""
        digest = hashlib.sha256(repr((self.kspace.shape, self.noise)).encode())
        digest.update(np.ascontiguousarray(self.kspace).tobytes())
        digest.update(np.packbits(self.mask).tobytes())
        return digest.hexdigest()[:12]

    @property
    def name(self) -> str:
        """Name for people and files."""
        noise = f"-noise{self.noise:g}" if self.noise else ""
        text = f"{self.data}-{self.slice}-{self.mask_name}{noise}-{self.identity[:6]}"
        return "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in text)

    @property
    def reference(self) -> Array:
        """Float32 (y, x), root-sum-of-squares image of the whole k-space."""
        return root_sum_of_squares(self.kspace)

    def measured(self) -> Array:
        """Complex64 (coil, y, x), noisy samples within the mask, zero elsewhere; the same in every call."""
        random = np.random.default_rng(0).standard_normal((2, *self.kspace.shape), dtype=np.float32)
        return ((self.kspace + self.noise * (random[0] + 1j * random[1])) * self.mask).astype(np.complex64)


def root_sum_of_squares(kspace: Array) -> Array:
    """Float32 image (y, x) of k-space (coil, y, x)."""
    return torch.linalg.vector_norm(ifft2c(torch.from_numpy(kspace)), dim=0).numpy()


@dataclass(frozen=True)
class BenchmarkCases:
    """Which cases a benchmark has: every slice with every mask and noise level.

    Parameters
    ----------
    data : fully sampled raw files (.h5), or arrays (.npy): complex images (slice, y, x), or k-space (coil, y, x) or
        (slice, coil, y, x)
    kspace : the arrays are k-space
    coils : birdcage coils that see the images of an array; 1: none
    slices : numbers of the slices that are taken; empty: all
    masks : mask files (.npy, .npz; bool (y, x)), FILE or FILE:NAME
    patterns : PATTERN:ACCELERATION with the patterns of `pipelines.simulation.sampling`
    noise : see `Case`
    """

    data: tuple[Path, ...]
    kspace: bool = False
    coils: int = 1
    slices: tuple[int, ...] = ()
    masks: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()
    noise: tuple[float, ...] = (0.0,)

    def cases(self) -> list[Case]:
        """Read all of them.

        Raises
        ------
        ReconError
            A file cannot be read, a scan is not fully sampled, a mask does not fit, or there is no case.
        """
        if not all(np.isfinite(level) and level >= 0 for level in self.noise):
            raise ReconError("benchmark: --noise must be 0 or more, in units of the image's maximum")
        cases = []
        for path in self.data:
            slices = self._array(path) if path.suffix == ".npy" else _scan(path)
            masks: dict[tuple[int, ...], list[tuple[str, Array]]] = {}
            for number in self.slices or range(len(slices)):
                if not 0 <= number < len(slices):
                    raise ReconError(f"{path}: there is no slice {number}; it has {len(slices)}, counted from 0")
                kspace = _normalised(f"{path}, slice {number}", slices[number])
                shape = kspace.shape[-2:]
                if shape not in masks:
                    masks[shape] = list(self._masks(shape))
                for name, mask in masks[shape]:
                    cases += [Case(path.stem, number, name, level, kspace, mask) for level in self.noise]
        if not cases:
            raise ReconError("benchmark: there is no case; give data, and masks or patterns")
        return cases

    def _array(self, path: Path) -> list[Array]:
        array = read_npy(path)
        if array.ndim not in ((3, 4) if self.kspace else (2, 3)) or array.dtype.kind not in "cfiu":
            shapes = "k-space (slice, coil, y, x) or (coil, y, x)" if self.kspace else "images (slice, y, x)"
            other = "" if self.kspace else "; k-space needs --kspace"
            raise ReconError(f"{path}: shape {array.shape} of {array.dtype} is not {shapes}{other}")
        array = array.astype(np.complex64)
        if self.kspace:
            return list(array if array.ndim == 4 else array[None])
        images = array if array.ndim == 3 else array[None]
        shape = images.shape[1:]
        maps = birdcage(self.coils, shape) if self.coils > 1 else np.ones((1, *shape), np.complex64)
        return [seen_by_coils(image, maps) for image in images]

    def _masks(self, shape: tuple[int, int]) -> Iterator[tuple[str, Array]]:
        for text in self.masks:
            yield from _read_masks(text, shape)
        for text in self.patterns or (() if self.masks else ("poisson:4",)):
            name, _, factor = text.partition(":")
            try:
                acceleration = float(factor)
            except ValueError:
                acceleration = 0.0
            if name not in PATTERNS or not 1 <= acceleration <= 64:
                raise ReconError(
                    f"benchmark: --pattern is '{text}'; give PATTERN:ACCELERATION, for instance poisson:4, with "
                    f"{', '.join(PATTERNS)} and 1 to 64"
                )
            yield f"{name}_{factor}", PATTERNS[name](shape, acceleration)


def _normalised(name: str, kspace: Array) -> Array:
    """K-space (coil, y, x), the maximum of its root-sum-of-squares image 1."""
    if min(kspace.shape[-2:]) < SMALLEST:
        raise ReconError(
            f"{name}: {kspace.shape[-2]} x {kspace.shape[-1]} is too small; SSIM needs {SMALLEST} x {SMALLEST}"
        )
    if not np.isfinite(kspace).all():
        raise ReconError(f"{name}: it has NaN or infinite samples; mend the data, or leave it out with --slices")
    top = float(root_sum_of_squares(kspace).max())
    if not top:
        raise ReconError(f"{name}: it is empty; leave it out with --slices")
    return (kspace / top).astype(np.complex64)


def _scan(path: Path) -> list[Array]:
    """K-space (coil, y, x) of the slices, or readout positions, of a fully sampled raw file."""
    found = []
    for bit in scan_bits(path, (CoilCompression(),)):
        data = bit.data.data
        for n, s, loc in np.ndindex(*data.shape[4:]):
            part = data[..., n, s, loc]
            check_fully_sampled(str(path), sampled(part)[0], "a benchmark needs fully sampled scans")
            found += list(kspace_problems(part).numpy())
    return found


def birdcage(coils: int, shape: tuple[int, ...]) -> Array:
    """Complex64 maps (coil, y, x) of birdcage coils, their sum of squares 1."""
    maps = sigpy.mri.birdcage_maps((coils, *shape), r=1.3).astype(np.complex64)
    return maps / np.linalg.norm(maps, axis=0)


def seen_by_coils(image: Array, maps: Array) -> Array:
    """K-space, complex64 (coil, y, x), of an image (y, x)."""
    return fft2c(torch.from_numpy((maps * image).astype(np.complex64))).numpy()


def _read_masks(text: str, shape: tuple[int, int]) -> Iterator[tuple[str, Array]]:
    """Masks of FILE or FILE:NAME; of a file with several those that fit are taken, a named one must."""
    path, name = Path(text), ""
    if not path.exists() and ":" in text:
        first, _, name = text.rpartition(":")
        path = Path(first)
    try:
        loaded = np.load(path, allow_pickle=False)
        masks = {path.stem: loaded} if isinstance(loaded, np.ndarray) else dict(loaded)
    except (OSError, ValueError, EOFError) as error:
        raise ReconError(f"{path}: cannot be read as masks ({one_line(error)}); give .npy or .npz of bool") from None
    if name and name not in masks:
        raise ReconError(f"{path}: it has no mask '{name}'; it has {', '.join(masks)}")
    chosen = {name: masks[name]} if name else masks
    fitting = {key: mask.astype(bool) for key, mask in chosen.items() if mask.shape == shape}
    if not fitting:
        shapes = ", ".join(f"{key} {mask.shape}" for key, mask in chosen.items())
        raise ReconError(f"{path}: no mask of it is {shape} as the k-space; it has {shapes}")
    for key, mask in fitting.items():
        if not mask.any():
            raise ReconError(f"{path}: mask {key} is empty; give one with samples")
        yield key, mask


# --- methods ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Entry:
    """A method with properties of the gadget `GenerativeRecon`."""

    method: str
    properties: tuple[tuple[str, str], ...] = ()

    @property
    def label(self) -> str:
        """Method and what was set."""
        return " ".join([self.method, *(f"{name}={value}" for name, value in self.properties)])

    @property
    def all_properties(self) -> dict[str, str]:
        """For the gadget."""
        return {**dict(self.properties), "method": self.method}

    def identity(self) -> str:
        """All that its images depend on beside the data: also the weights."""
        text = self.label
        if self.method in GENERATIVE:
            weights = prior_file(self.method, dict(self.properties).get("prior", ""))
            text += hashlib.sha256(weights.read_bytes()).hexdigest()
        return text


def default_entries() -> list[Entry]:
    """All methods that can run here."""
    names = [name for name, method in METHODS.items() if not method.program or shutil.which(method.program[0])]
    return [Entry(name) for name in (*names, *GENERATIVE)]


def read_entry(text: str) -> Entry:
    """METHOD or METHOD:property=value,property=value.

    Raises ReconError for an unknown method or property, a bad value, or a program that is not there.
    """
    method, _, rest = text.partition(":")
    pairs = [part.partition("=") for part in rest.split(",") if part]
    if not all(name and equals for name, equals, _ in pairs):
        raise ReconError(f"benchmark: --method is '{text}'; give METHOD or METHOD:property=value,property=value")
    properties = {name.strip(): value.strip() for name, _, value in pairs}
    for name in SET_HERE & properties.keys():
        raise ReconError(f"benchmark: --method is '{text}'; the benchmark sets {name} itself, leave it out")
    if "prior" in properties:  # where workers run, the folder is another one
        properties["prior"] = str(Path(properties["prior"]).expanduser().absolute())
    entry = Entry(method.strip(), tuple(properties.items()))
    ArrayReconstruction(entry.all_properties)  # checks them
    return entry


# --- one task --------------------------------------------------------------------------------------------------------


def measures(image: Array, reference: Array) -> dict[str, float]:
    """PSNR (dB), SSIM, NRMSE and HFEN of an image, over all of it and (…_object) where the object is.

    Parameters
    ----------
    image, reference : float32 (y, x); the reference has maximum 1

    Notes
    -----
    HFEN: norm of the difference after a Laplacian of Gaussian (15 x 15, sigma 1.5 pixels), relative to the reference's
    (Ravishankar and Bresler, IEEE TMI 2011). The object is where the reference is above 5 % of its maximum.
    """
    image, reference = image.astype(np.float32), reference.astype(np.float32)
    inside = reference > OBJECT
    ssim, of_pixels = structural_similarity(reference, image, data_range=1.0, full=True)
    edges, of_reference = (gaussian_laplace(one, 1.5, truncate=7 / 1.5) for one in (image - reference, reference))
    return {
        "psnr": _psnr(image - reference),
        "ssim": float(ssim),
        "nrmse": float(np.linalg.norm(image - reference) / np.linalg.norm(reference)),
        "hfen": float(np.linalg.norm(edges) / np.linalg.norm(of_reference)),
        "psnr_object": _psnr((image - reference)[inside]),
        "ssim_object": float(of_pixels[inside].mean()),
        "nrmse_object": float(np.linalg.norm((image - reference)[inside]) / np.linalg.norm(reference[inside])),
        "hfen_object": float(np.linalg.norm(edges[inside]) / np.linalg.norm(of_reference[inside])),
    }


def _psnr(difference: Array) -> float:
    """PSNR in dB to a maximum of 1; 200 dB where there is no difference."""
    return float(-10 * np.log10(max(np.square(difference, dtype=np.float64).mean(), 1e-20)))


class PeakMemory:
    """Most memory that this process had more than at the beginning, in MiB, while a block ran; by looking often."""

    def __enter__(self) -> PeakMemory:
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)  # what earlier work left is not to be used again unseen
        self._process = psutil.Process()
        self._before = self._most = self._process.memory_info().rss
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._stop.wait(0.005):
            self._most = max(self._most, self._process.memory_info().rss)

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._most = max(self._most, self._process.memory_info().rss)

    @property
    def megabytes(self) -> float:
        return (self._most - self._before) / 2**20


_one_at_a_time = threading.Lock()  # threads, memory and time are those of the process


def run_task(case: Case, entry: Entry, repeats: int, threads: int) -> tuple[dict[str, Any], dict[str, Array]]:
    """Reconstruct one case by one method: its row of the results, and its images.

    Parameters
    ----------
    repeats : timed calls after a first one that is not
    threads : of torch; 0: as many as there are processors

    Returns
    -------
    row, arrays (image, deviation) float32 (y, x); a method that failed leaves its error in the row.
    """
    threads = threads or os.cpu_count() or 1
    row = _failed(case, entry, "") | {"processor": _processor(), "threads": threads}
    with _one_at_a_time:
        torch.set_num_threads(threads)
        try:
            reconstruction = ArrayReconstruction(entry.all_properties)
            item = reconstruction.with_maps(case.measured())
            with PeakMemory() as memory:
                result = reconstruction(item)
            times = [reconstruction(item).seconds for _ in range(repeats)] or [result.seconds]
            image = np.abs(result.image).astype(np.float32)
            row |= measures(image, case.reference)
        except ReconError as error:
            return row | {"error": one_line(error)}, {}
        except Exception as error:  # a benchmark goes on
            return row | {"error": f"{one_line(error)} (unexpected)"}, {}
    evaluations = result.notes.get("GenreconEvaluations")
    row |= {"seconds": statistics.median(times), "memory_mb": memory.megabytes, "warnings": result.warnings}
    row |= {"evaluations": int(evaluations) if evaluations else None}
    row["consistency"] = result.notes.get("GenreconDataConsistency", "")
    arrays = {"image": image}
    if result.deviation is not None:
        arrays["deviation"] = result.deviation
    return row, arrays


def _failed(case: Case, entry: Entry, error: str) -> dict[str, Any]:
    """Row of a task without a result."""
    row: dict[str, Any] = {"case": case.name, "method": entry.label, **dict.fromkeys((*METRICS, *_OF_OBJECT))}
    row |= {"seconds": None, "memory_mb": None, "evaluations": None, "consistency": "", "warnings": []}
    return row | {"processor": "", "threads": None, "error": error}


_OF_OBJECT = tuple(f"{name}_object" for name in METRICS)


# --- the run ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Task:
    case: Case
    entry: Entry
    key: str


Finished = Generator[tuple[_Task, dict[str, Any], dict[str, Array]], None, None]


def benchmark(
    cases: Sequence[Case],
    entries: Sequence[Entry],
    folder: Path,
    *,
    repeats: int = 1,
    workers: int = 1,
    threads: int = 0,
    dask: str = "",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Run all methods on all cases; leave tables and images in a folder, and go on where an earlier run ended.

    Parameters
    ----------
    cases, entries : every case is reconstructed by every entry
    folder : results.csv, results.json, cases/*.npz and images/*.npz go there
    repeats : timed calls of each, after a first one; the median counts
    workers : processes at a time on this machine
    threads : of each process; 0: as many as there are processors for it
    dask : address of a dask scheduler whose workers do the work instead
    progress : told of every task that ends

    Returns
    -------
    What results.json holds.

    Raises
    ------
    ReconError
        The folder cannot be written to, the scheduler cannot be reached, or a process died again and again.
    """
    if not dask:
        threads = threads or max(1, (os.cpu_count() or 1) // workers)
    tasks = [_Task(case, entry, task_key(case, entry, repeats, threads)) for case in cases for entry in entries]
    rows: dict[str, dict[str, Any]] = {}
    with writing(folder):
        for name in ("cases", "images", "rows"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        for case in cases:
            _save_case(folder, case)
    for task in tasks:
        found = _read_row(folder, task.key)
        if found is not None:
            rows[task.key] = found
    todo = [task for task in tasks if task.key not in rows]
    source = _by_dask(dask, todo, repeats, threads) if dask else _here(todo, repeats, threads, workers)
    with contextlib.closing(source) as finished:
        for task, row, arrays in finished:
            with writing(folder):
                row["file"] = f"images/{task.key}.npz" if arrays else ""
                if arrays:
                    replace_file(folder / row["file"], npz_bytes(arrays))
                replace_file(folder / "rows" / f"{task.key}.json", json.dumps(row).encode())
            rows[task.key] = row
            if progress:
                progress(len(rows), len(tasks), f"{task.case.name}: {task.entry.label}")
    results = {
        "version": metadata.version("gadgetron-genrecon"),
        "created": datetime.datetime.now(tz=datetime.timezone.utc).isoformat(timespec="seconds"),
        "machine": {"processor": _processor(), "threads": threads, "torch": torch.__version__},
        "cases": [case_row(case) for case in cases],
        "rows": [rows[task.key] for task in tasks],
    }
    with writing(folder):
        replace_file(folder / "results.csv", _csv(results).encode())
        replace_file(folder / RESULTS, json.dumps(results, indent=1).encode())
    return results


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn what the system raises in the block, which writes below a folder, into one line."""
    try:
        yield
    except OSError as error:
        raise ReconError(
            f"{error.filename or folder}: cannot be written ({error.strerror or error}); free space or choose another "
            "folder with --out"
        ) from None


def task_key(case: Case, entry: Entry, *settings: Any) -> str:
    """Hash of all that what is made of a case by a method depends on. Raises ReconError for weights that are gone."""
    try:
        method = entry.identity()
    except OSError as error:
        raise ReconError(f"{error.filename}: cannot be read ({error.strerror}); give the weights' file") from None
    text = repr((metadata.version("gadgetron-genrecon"), case.name, case.identity, method, *settings))
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def _here(tasks: Sequence[_Task], repeats: int, threads: int, workers: int) -> Finished:
    """Finished tasks, by processes of this machine or, with one worker, in this process."""
    if workers <= 1:
        before = torch.get_num_threads()
        try:
            for task in tasks:
                yield task, *run_task(task.case, task.entry, repeats, threads)
        finally:
            torch.set_num_threads(before)
        return
    waiting, idle = list(tasks), 0  # rounds of which every process died
    while waiting:
        alone = idle >= ATTEMPTS
        batch = waiting[:1] if alone else waiting
        failed: list[_Task] = []
        yield from _round(batch, repeats, threads, 1 if alone else workers, failed)
        if alone and failed:
            text = f"its process was killed, {ATTEMPTS} times and more; it may need more memory than there is"
            yield failed[0], _failed(failed[0].case, failed[0].entry, text), {}
            failed = []
        idle = idle + 1 if len(failed) == len(batch) else idle if alone else 0
        waiting = failed + waiting[len(batch) :]


def _round(batch: list[_Task], repeats: int, threads: int, workers: int, failed: list[_Task]) -> Finished:
    """Finished tasks of one pool of processes; those that a killed process took along are added to `failed`."""
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"))
    running: dict[Future[Any], _Task] = {}
    try:
        for task in batch:
            try:
                running[pool.submit(run_task, task.case, task.entry, repeats, threads)] = task
            except BrokenProcessPool:
                failed.append(task)
        while running:
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                task = running.pop(future)
                try:
                    yield task, *future.result()
                except BrokenProcessPool:
                    failed.append(task)
    except BaseException:  # interrupted: nobody waits for what is queued
        pool.shutdown(wait=False, cancel_futures=True)
        for process in multiprocessing.active_children():
            process.terminate()
        raise
    pool.shutdown()


def _by_dask(address: str, tasks: Sequence[_Task], repeats: int, threads: int) -> Finished:
    """Finished tasks, by the workers of a dask scheduler; a task whose worker dies goes to another one."""
    client = dask_client(address)
    try:
        from distributed import as_completed

        # Not scattered: what a worker that dies had of those would be lost.
        cases = {id(task.case): task.case for task in tasks}
        data = {number: client.submit(_same, case, key=f"genrecon-{case.name}") for number, case in cases.items()}
        futures = {
            client.submit(run_task, data[id(t.case)], t.entry, repeats, threads, key=f"genrecon-{t.key}", pure=False): t
            for t in tasks
        }
        for future in as_completed(futures):
            task = futures[future]
            try:
                result = future.result()
            except Exception as error:
                raise ReconError(
                    f"dask {address}: {task.case.name}, {task.entry.label}: {one_line(error)}; see the workers' logs"
                ) from None
            yield task, *result
    finally:
        client.close()


def _same(case: Case) -> Case:
    return case


def check_metrics(text: str) -> list[str]:
    """Names of metrics, with commas between them. Raises ReconError for one that is not known."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    known = (*METRICS, *_OF_OBJECT)
    for name in names:
        if name not in known:
            raise ReconError(f"benchmark: there is no metric '{name}'; there are {', '.join(known)}")
    return names


def summary(results: Mapping[str, Any], metrics: Sequence[str]) -> Table:
    """A table of the terminal: a row a method, a column a case with the metrics asked for, then time and evaluations.

    Parameters
    ----------
    results : what `benchmark` returned
    metrics : their names
    """
    scans = dict.fromkeys(f"{case['data']}, slice {case['slice']}" for case in results["cases"])
    title = f"{' / '.join(metrics)}; seconds, memory: median over the cases"
    table = Table(title=escape(f"{next(iter(scans))}: {title}") if len(scans) == 1 else title, title_justify="left")
    table.add_column("method", no_wrap=True)
    for case in results["cases"]:
        name = case["mask"] if len(scans) == 1 else f"{case['data']}, slice {case['slice']}, {case['mask']}"
        table.add_column(escape(name) + (f", noise {case['noise']:g}" if case["noise"] else ""))
    for name in ("s", "MiB", "evaluations"):
        table.add_column(name, justify="right", no_wrap=True)
    for method in dict.fromkeys(row["method"] for row in results["rows"]):
        rows = {row["case"]: row for row in results["rows"] if row["method"] == method}
        cells = []
        for case in results["cases"]:
            row = rows[case["case"]]
            values = [
                f"{row[name]:.2f}" if name.startswith("psnr") else f"{row[name]:.4f}"
                for name in metrics
                if not row["error"]
            ]
            cells.append("failed" if row["error"] else " / ".join(values) + ("*" if row["warnings"] else ""))
        last = []
        for name, digits in (("seconds", 2), ("memory_mb", 0), ("evaluations", 0)):
            numbers = [float(row[name]) for row in rows.values() if row[name] is not None]
            last.append(f"{statistics.median(numbers):.{digits}f}" if numbers else "")
        table.add_row(escape(method), *cells, *last)
    if any(row["warnings"] for row in results["rows"]):
        table.caption = "*: with warnings, see results.csv"
    return table


# --- files -----------------------------------------------------------------------------------------------------------


def case_row(case: Case) -> dict[str, Any]:
    return {
        "case": case.name,
        "data": case.data,
        "slice": case.slice,
        "mask": case.mask_name,
        "acceleration": float(case.mask.size / case.mask.sum()),
        "noise": case.noise,
        "matrix": list(case.mask.shape),
        "coils": case.kspace.shape[0],
        "file": f"cases/{case.name}.npz",
    }


def _save_case(folder: Path, case: Case) -> None:
    path = folder / "cases" / f"{case.name}.npz"
    if path.exists():
        return
    item = ArrayReconstruction({"method": "cg_sense"}).with_maps(case.measured())
    maps = item.bits[0].coil_maps[:, :, 0, :, 0, 0, 0].transpose(2, 1, 0)
    replace_file(path, npz_bytes({"reference": case.reference, "mask": case.mask, "maps": maps.astype(np.complex64)}))


def _read_row(folder: Path, key: str) -> dict[str, Any] | None:
    """The row of a task that is done; one that failed, or whose image is gone, is done again."""
    try:
        row = json.loads((folder / "rows" / f"{key}.json").read_text())
    except (OSError, ValueError):
        return None
    done = isinstance(row, dict) and not row.get("error") and (folder / str(row.get("file"))).is_file()
    return row if done else None


def _csv(results: Mapping[str, Any]) -> str:
    cases = {case["case"]: case for case in results["cases"]}
    columns = ["data", "slice", "mask", "acceleration", "noise", "method", *METRICS, *_OF_OBJECT]
    columns += ["seconds", "memory_mb", "evaluations", "consistency", "processor", "threads", "warnings", "error"]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, extrasaction="ignore")
    writer.writeheader()
    for row in results["rows"]:
        writer.writerow({**cases[row["case"]], **row, "warnings": "; ".join(row["warnings"])})
    return text.getvalue()


def npz_bytes(arrays: Mapping[str, Array]) -> bytes:
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)  # type: ignore[arg-type]
    return content.getvalue()


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()

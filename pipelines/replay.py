"""Replay of raw ISMRMRD files through a chain, in process or on a real Gadgetron server."""

from __future__ import annotations

import contextlib
import copy
import itertools
import json
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import ismrmrd
import numpy as np

from gadgets.acquisition_flags import is_noise
from gadgets.acquisitions import IMAGE_COUNTERS
from gadgets.dicom_output import DicomOutput
from gadgets.errors import counted
from gadgets.image_lines import ImageLines
from gadgets.image_values import grey_range, output_of, values_of
from gadgets.images import WARNINGS, meta_of, meta_values, single_precision
from gadgets.nifti_output import NiftiOutput, NiftiParameters
from gadgets.readouts import WholeReadouts
from gadgets.scan_digest import ScanDigest
from gadgets.stream import ReconError, StageTiming, read_parameters
from gadgets.stream.logs import collected_warnings
from gadgets.survey import Survey
from pipelines.chain import CHAIN_PROPERTY, Chain, read_chain
from pipelines.evaluation.distribute import DaskReplay
from pipelines.info import describe_scan
from pipelines.kept.scan import CHAIN_FILE, kept_scan_of
from pipelines.montage import square_pixels, write_montage
from pipelines.noise.references import given_reference, tell_of_reference
from pipelines.noise.sources import choose_noise
from pipelines.noise.streamed import noise_in_stream
from pipelines.raw import RawScan
from pipelines.scan_scale import set_pixel_scale
from pipelines.staging import staged_folder
from pipelines.wire import reconstruct_remotely
from priors.extras import require

DICOM_MODULE = "gadgets.dicom_output"
IMAGES_FILE = "images.h5"
IMAGES_GROUP = "images"
ACCOUNT_FILE = "replay.json"
MONTAGE_TILES = 36
HEADER_TEXTS = {"scanner", "protocol", "sequence", "noise named"}  # rows of the summary that hold free text

Progress = Callable[[int, int], None]


@dataclass
class Series:
    """The images of one image_series_index."""

    number: int
    images: int = 0
    matrix: tuple[int, ...] = ()  # z, y, x
    method: str = ""
    montage: Path | None = None


@dataclass
class ReplayResult:
    """Files and times of a replay.

    Attributes
    ----------
    raw, folder : Path
        Raw file, and the folder of the results.
    series : dict of int to Series
        Number of images, matrix (z, y, x), method and montage of each series, by its number.
    dicom_files, nifti_files : int
        How many were written.
    seconds, first_image_seconds : float
        From the start to the end, and to the first image.
    timings : list of StageTiming
        Seconds in which each gadget was busy.
    warnings : list of str
        Each once, one line.
    noise : str
        Noise that the data were prewhitened with; empty for none.
    images : int
        Number of images of all series.
    """

    raw: Path
    folder: Path
    series: dict[int, Series] = field(default_factory=dict)
    dicom_files: int = 0
    nifti_files: int = 0
    seconds: float = 0.0
    first_image_seconds: float = 0.0
    timings: list[StageTiming] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    noise: str = ""  # that the data were prewhitened with

    @property
    def images(self) -> int:
        """Number of images of all series."""
        return sum(series.images for series in self.series.values())


def apply_settings(chain: Chain, settings: list[str]) -> None:
    """Apply `gadget.property=value` texts to a chain. Raises ReconError for a text of another form."""
    for text in settings:
        path, equals, value = text.partition("=")
        gadget, dot, name = path.strip().partition(".")
        if not equals or not dot or not gadget or not name:
            raise ReconError(f"--set {text}: give gadget.property=value, for instance generative_recon.method=cg_sense")
        if (gadget, name) == ("dicom_output", "folder"):
            raise ReconError(f"--set {text}: a replay writes its DICOM below its output folder; choose that with --out")
        chain.set(gadget, name, value)


def replay(
    raw: str | Path,
    config: str | Path | Chain,
    folder: str | Path,
    *,
    group: str = "",
    settings: list[str] | None = None,
    gadgetron: str | None = None,
    processes: bool = False,
    timeout: float = 600.0,
    dask: DaskReplay | None = None,
    progress: Progress | None = None,
    noise: str = "",
    nifti: bool = False,
    reference: str = "",
    as_served: bool = False,
) -> ReplayResult:
    """Reconstruct one raw file and leave DICOM, PNG montages, images as ISMRMRD HDF5, and replay.json about the run.

    Parameters
    ----------
    raw : str or Path
        Raw file: ISMRMRD, fastMRI, or an MRD stream.
    config : str, Path or Chain
        Name of a shipped chain, an XML file, or a chain, which is left as it is.
    folder : str or Path
        Where the results go; it holds them only when the whole scan was reconstructed.
    group : str
        Of a file with several measurements, the name of the one to reconstruct.
    settings : list of str, optional
        `gadget.property=value` texts that override the chain's.
    gadgetron : str, optional
        HOST:PORT of a server that runs the chain; by default this process does.
    processes : bool
        Run each external gadget as a process of its own, as Gadgetron does.
    timeout : float
        Seconds without data from the server after which the replay fails.
    dask : DaskReplay, optional
        The same file and chain, already submitted to the workers of a cluster.
    progress : callable, optional
        Called with (acquisitions read, images back).
    noise : str
        File of a noise scan, or address of a storage server, instead of the noise lines of the raw file.
    nifti : bool
        Leave NIfTI files as well.
    reference : str
        Raw file of a reference scan, whose calibration is used where the scan has none of its own.
    as_served : bool
        Of a scan that a server kept: reconstruct it as the server did, with the chain and noise that were kept, not
        those given, line by line without knowledge of later lines.

    Returns
    -------
    ReplayResult
        What was written, times and warnings.

    Raises
    ------
    ReconError
        The file, the chain, the server or the output folder cannot be used; one line that says how to correct it.

    Notes
    -----
    A noise measurement, whose lines are all noise, has no image; only replay.json is left.
    """
    start = time.perf_counter()
    folder = Path(folder).absolute()
    if nifti:
        require("nibabel")
    result = ReplayResult(Path(raw), folder)
    kept = kept_scan_of(result.raw) if as_served else None
    chain = configured_chain(str(kept.folder / CHAIN_FILE) if kept else config, settings)
    with (
        RawScan(raw, group, as_they_are=as_served) as scan,
        collected_warnings(result.warnings),
        staged_folder(folder) as staging,
    ):
        if scan.noise_only:
            result.noise = f"a noise measurement of {scan.heads()['active_channels'].max()} coils: it has no image"
            result.seconds = time.perf_counter() - start
            _write_account(staging / ACCOUNT_FILE, "noise measurement", result, chain.name, {})
            return result
        survey, lines = None if kept else scan.survey(), scan.acquisitions()
        if kept:
            chain.noise, lines = noise_in_stream(scan.header, lines, kept.noise())
            chain.reference = kept.reference()
        elif chain.prewhitens:
            chain.noise = choose_noise(scan, noise, not anonymizes(chain))
        if reference and not kept:
            chain.reference = given_reference(scan, Path(reference), not anonymizes(chain))
        if chain.noise:
            result.noise = ", ".join(filter(None, (chain.noise.text, chain.noise.name)))
        if not kept:
            set_pixel_scale(chain, scan)
        digest = ScanDigest()
        lines = _counted(digest.watch(lines), result, progress)
        remaining = chain.without(DICOM_MODULE)  # DICOM is written here, from the images, wherever the chain runs
        if dask:
            items: Any = dask.images(result.timings)
            next((None for _ in digest.watch(scan.acquisitions()) if digest.text), None)
        elif gadgetron:
            _warn_of_loops(remaining, survey)
            remaining, lines = _with_noise_line(remaining, lines)
            whole = WholeReadouts(scan.header)(_lines_of_images(scan.header, lines))
            items = reconstruct_remotely(gadgetron, remaining.to_xml(), scan.header_xml, whole, timeout)
        else:
            items = remaining.run(scan.header, lines, processes=processes, timings=result.timings, survey=survey)
        node = chain.external(DICOM_MODULE)
        dicom = DicomOutput()
        dicom.survey = survey
        properties = {**(node.properties if node else {}), "folder": str(staging / "dicom")}
        properties[CHAIN_PROPERTY] = chain.digest()
        dicom.configure(scan.header, properties)
        with contextlib.closing(items):
            images = dicom.process(digest.mark(_images(items)))
            if nifti:
                images = _with_nifti(images, dicom, properties, staging / "nifti")
            _store(images, staging, result, start, progress)
        if result.images == 0:
            raise ReconError(
                f"{raw}: no image came back; "
                + (
                    f"see the log of the server {gadgetron}"
                    if gadgetron
                    else f"check that chain {chain.name} sends images"
                )
            )
        if not kept and not chain.reference:
            tell_of_reference(scan.header, result.warnings, "give its raw file with --reference")
        _montages(staging, result)
        _tell_of_earlier_files(folder, staging)
        result.dicom_files = sum(1 for _ in (staging / "dicom").rglob("*.dcm"))
        result.nifti_files = sum(1 for _ in (staging / "nifti").rglob("*.nii.gz"))
        result.seconds = time.perf_counter() - start
        anonymize = dicom.parameters.anonymize
        header = {name: text for name, text in describe_scan(scan) if not (anonymize and name in HEADER_TEXTS)}
        _write_account(staging / ACCOUNT_FILE, "scan" if anonymize else result.raw.name, result, chain.name, header)
    for series in result.series.values():
        series.montage = folder / f"series_{series.number:03d}.png"
    result.seconds = time.perf_counter() - start
    return result


def _with_nifti(
    images: Iterator[ismrmrd.Image], dicom: DicomOutput, properties: dict[str, str], folder: Path
) -> Iterator[ismrmrd.Image]:
    """Write the images as NIfTI too, with the properties that DICOM output has."""
    gadget = NiftiOutput()
    gadget.survey = dicom.survey
    known = {name: text for name, text in properties.items() if name in NiftiParameters.__dataclass_fields__}
    gadget.configure(dicom.header, {**known, "folder": str(folder)})
    return gadget.process(images)


def _lines_of_images(header: Any, lines: Iterator[Any]) -> Iterator[Any]:
    """Lines and noise only: a real Gadgetron places other readouts like lines. Our gadgets turn round reversed ones."""
    gadget = ImageLines()
    gadget.configure(header, {"turn_round": "false"})
    return gadget.process(lines)


def configured_chain(config: str | Path | Chain, settings: list[str] | None) -> Chain:
    """A chain with `gadget.property=value` texts applied. Raises ReconError as `read_chain` and `apply_settings`."""
    chain = copy.deepcopy(config) if isinstance(config, Chain) else read_chain(str(config))
    apply_settings(chain, settings or [])
    return chain


def anonymizes(chain: Chain) -> bool:
    """Whether its DICOM gadget leaves out who, where and when."""
    node = chain.external(DICOM_MODULE)
    return node is not None and read_parameters(DicomOutput.Parameters, node.properties, DicomOutput.__name__).anonymize


def _tell_of_earlier_files(folder: Path, staging: Path) -> None:
    """Warn where images of an earlier replay will lie beside those of this one."""
    if not (folder / ACCOUNT_FILE).is_file():
        return
    found = [*folder.glob("series_*.png"), *folder.glob("dicom/**/*.dcm"), *folder.glob("nifti/**/*.nii.gz")]
    left = sum(1 for path in found if not (staging / path.relative_to(folder)).exists())
    if left:
        logging.getLogger("genrecon").warning(
            "%s holds %s of an earlier replay beside the new ones; -o FOLDER keeps replays apart",
            folder,
            counted(left, "image file"),
        )


def _write_account(path: Path, raw: str, result: ReplayResult, chain: str, header: dict[str, str]) -> None:
    """Write what `genrecon report` shows of the run, next to the images; no patient data."""
    account = {
        "raw": raw,
        "chain": Path(chain).name,
        "seconds": result.seconds,
        "first_image_seconds": result.first_image_seconds,
        "timings": [asdict(timing) for timing in result.timings],
        "warnings": result.warnings,
        "noise": result.noise,
        "header": header,
    }
    path.write_text(json.dumps(account, indent=1))


def _warn_of_loops(chain: Chain, survey: Survey | None) -> None:
    """Warn of a counter at whose changes a real Gadgetron would cut images into pieces."""
    if survey is None:
        return
    for node in chain.nodes:
        name = node.properties.get("trigger_dimension", "") if node.classname else ""
        if name in IMAGE_COUNTERS and survey.splits_images(name):
            logging.getLogger("genrecon").warning(
                "the counter %s changes within images: a real Gadgetron makes images of a part of their lines; replay "
                "without --gadgetron",
                name,
            )


def _with_noise_line(chain: Chain, lines: Iterator[Any]) -> tuple[Chain, Iterator[Any]]:
    """Chain and lines for a server that knows no noise but that of the stream."""
    if chain.noise is None or chain.noise.scan is None:
        return chain, lines
    for node in chain.nodes:
        node.properties |= chain.noise_properties(node)
    others = (line for line in lines if not is_noise(line))
    return chain, itertools.chain([chain.noise.scan.as_line()], others)


def _counted(lines: Iterator[Any], result: ReplayResult, progress: Progress | None) -> Iterator[Any]:
    for count, line in enumerate(lines, 1):
        if progress:
            progress(count, result.images)
        yield line


def _images(items: Iterator[Any]) -> Iterator[ismrmrd.Image]:
    logger = logging.getLogger("genrecon")
    for item in items:
        if isinstance(item, ismrmrd.Image):
            yield single_precision(item)
        elif isinstance(item, str):
            logger.warning("%s", item)


def _store(
    images: Iterator[ismrmrd.Image], staging: Path, result: ReplayResult, start: float, progress: Progress | None
) -> None:
    """Write images to HDF5 as they come, one group a series, as Gadgetron's own client lays them out."""
    with ismrmrd.Dataset(str(staging / IMAGES_FILE), IMAGES_GROUP, mode="w") as dataset:
        for image in images:
            if not result.images:
                result.first_image_seconds = time.perf_counter() - start
            number = image.image_series_index
            series = result.series.setdefault(number, Series(number))
            matrix = image.data.shape[1:]
            if series.images and series.matrix != matrix:
                raise ReconError(
                    f"series {number}: its images differ in size ({series.matrix} and {matrix}); give them series of "
                    "their own (image_series_index)"
                )
            series.images += 1
            series.matrix = matrix
            meta = meta_of(image.attribute_string)
            series.method = ", ".join(meta_values(meta, "GenreconMethod")) or series.method
            for text in meta_values(meta, WARNINGS):  # also from gadgets that ran elsewhere
                if text not in result.warnings:
                    result.warnings.append(text)
            dataset.append_image(f"image_{number}", image)
            if progress:
                progress(0, result.images)


def read_images(folder: str | Path, series: int, indices: list[int] | None = None) -> Iterator[ismrmrd.Image]:
    """Yield the images that a replay left, in the order they came.

    Parameters
    ----------
    folder : str or Path
        Folder of the results.
    series : int
        Number of the series: 1 for the magnitude, others in docs/outputs.md.
    indices : list of int, optional
        Which images, counted from 0; by default all.

    Yields
    ------
    ismrmrd.Image
        Pixels (coil, z, y, x), header and meta attributes.
    """
    with ismrmrd.Dataset(str(Path(folder) / IMAGES_FILE), IMAGES_GROUP, mode="r") as dataset:
        name = f"image_{series}"
        for index in range(dataset.number_of_images(name)) if indices is None else indices:
            yield dataset.read_image(name, index)


def _montages(staging: Path, result: ReplayResult) -> None:
    for number, series in result.series.items():
        partitions = series.matrix[0]
        total = series.images * partitions
        chosen = np.unique(np.linspace(0, total - 1, min(total, MONTAGE_TILES)).round().astype(int))
        tiles = []
        for index in np.unique(chosen // partitions):
            (image,) = read_images(staging, number, [int(index)])
            values = values_of(image)[0]
            volume = values if output_of(image).signed else np.abs(values)
            pixel = [image.field_of_view[axis] / max(image.matrix_size[axis], 1) for axis in (1, 0)]
            for partition in chosen[chosen // partitions == index] % partitions:
                tiles.append(square_pixels(volume[partition], pixel))
        write_montage(staging / f"series_{number:03d}.png", tiles, *grey_range(output_of(image), np.stack(tiles)))

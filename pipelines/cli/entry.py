"""The command line: `genrecon replay`, `simulate`, `info`, `demo`, `benchmark`, `report`, `train` and others."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.markup import escape
from rich.table import Table

from gadgets.stream import ReconError, one_line, reason_of
from pipelines.cli.console import console, errors, log_to_stderr, print_error, progress_bar
from pipelines.cli.train import train_app
from pipelines.server.processes import settle_allocator

DEFAULT_CONFIG = "cg_sense"  # linear: no prior decides what is seen

app = typer.Typer(
    name="genrecon",
    help="Generative MR reconstruction: raw ISMRMRD data in, DICOM out, with Gadgetron or without.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
)
app.add_typer(train_app, name="train")


def _print_version(wanted: bool) -> None:
    if wanted:
        console.print(f"genrecon {metadata.version('gadgetron-genrecon')}", highlight=False)
        raise typer.Exit


@app.callback()
def _options(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say what every gadget does.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and end.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    logger = logging.getLogger("genrecon")
    logger.setLevel(logging.WARNING)
    if verbose:
        log_to_stderr()
    else:
        logger.addHandler(logging.NullHandler())  # warnings stand in each run's summary


def _result_folder(raw: Path, out: Path | None, several: bool) -> Path:
    if out is None:
        return Path("genrecon-out") / raw.stem
    return out / raw.stem if several else out


@app.command()
def replay(
    raw: Annotated[list[Path], typer.Argument(help="Raw ISMRMRD files (.h5).", show_default=False)],
    config: Annotated[
        str, typer.Option("--config", "-c", help="Chain: a shipped one's name (see `genrecon chains`) or an XML file.")
    ] = DEFAULT_CONFIG,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="Folder for the results; with several files one folder each in it.  [default: genrecon-out/FILE]",
        ),
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="gadget.property=value, overriding the chain; may be repeated.")
    ] = None,
    gadgetron: Annotated[
        str | None, typer.Option(help="HOST:PORT of a Gadgetron server that runs the chain, instead of this process.")
    ] = None,
    processes: Annotated[
        bool, typer.Option("--processes", help="Run each external gadget in a process of its own, as Gadgetron does.")
    ] = False,
    timeout: Annotated[
        float, typer.Option(min=1.0, help="Seconds of silence after which a server is given up.")
    ] = 600.0,
    dask: Annotated[
        str, typer.Option(help="Dask scheduler (tcp://HOST:PORT) whose workers reconstruct the slices of all files.")
    ] = "",
) -> None:
    """Reconstruct raw ISMRMRD files: DICOM, PNG montages and images as ISMRMRD HDF5.

    Leaves in the output folder dicom/, series_NNN.png, images.h5 and replay.json (chain, timing, warnings), all of
    them or (after an error) nothing.
    """
    from pipelines.raw import RawScan
    from pipelines.replay import configured_chain
    from pipelines.replay import replay as run

    folders = [_result_folder(path, out, len(raw) > 1) for path in raw]
    if len(set(folders)) != len(folders):
        raise ReconError("replay: two files have the same name and would share a folder; replay them one by one")
    failed = []
    spread: dict[Path, Any] = {}
    if dask:
        from pipelines.evaluation.distribute import DaskReplay, dask_client
        from pipelines.replay import DICOM_MODULE

        if gadgetron or processes:
            raise ReconError("replay: --dask runs the chain on its own workers; leave out --gadgetron and --processes")
        client = dask_client(dask)
        for path in raw:
            with contextlib.suppress(ReconError):  # told when its turn comes
                spread[path] = DaskReplay(client, path, configured_chain(config, settings).without(DICOM_MODULE))
    for path, folder in zip(raw, folders, strict=True):
        try:
            with RawScan(path) as scan:
                total = scan.acquisition_count
            with progress_bar(total, "acquisitions") as update:
                state = {"lines": 0}

                def progress(lines: int, images: int, state: dict[str, int] = state, path: Path = path) -> None:
                    state["lines"] = max(state["lines"], lines)
                    update(state["lines"], f"{path.name}: {images} images")

                result = run(
                    path,
                    config,
                    folder,
                    settings=settings,
                    gadgetron=gadgetron,
                    processes=processes,
                    timeout=timeout,
                    dask=spread.get(path),
                    progress=progress,
                )
        except Exception as error:
            if path in spread:
                spread[path].close()
            if len(raw) == 1:
                raise
            failed.append(path)
            print_error(error)
            continue
        _print_result(result)
    if failed:
        raise ReconError(f"replay: {len(failed)} of {len(raw)} files failed; see the lines above")


def _print_result(result: Any) -> None:
    table = Table(title=escape(f"{result.raw.name}: {result.folder}"), title_justify="left")
    for column in ("series", "images", "matrix", "method", "montage"):
        table.add_column(column, overflow="fold")
    for series in result.series.values():
        matrix = " x ".join(str(size) for size in reversed(series.matrix) if size > 1)
        montage = series.montage.name if series.montage else ""
        table.add_row(str(series.number), str(series.images), matrix, escape(series.method or "-"), montage)
    console.print(table)
    for text in result.warnings:
        console.print(escape(f"warning: {text}"), style="yellow", soft_wrap=True, highlight=False)
    busy = ", ".join(
        f"{t.name} {t.busy:.2f} s" for t in sorted(result.timings, key=lambda t: -t.busy) if t.busy >= 0.05
    )
    console.print(
        f"{result.images} images, {result.dicom_files} DICOM files in {result.seconds:.2f} s "
        f"(first image after {result.first_image_seconds:.2f} s){'; ' if busy else ''}{busy}",
        soft_wrap=True,
        highlight=False,
    )


@app.command("serve")
def serve_command(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 9002,
    bind: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 opens it to the network.")] = "127.0.0.1",
    chains: Annotated[
        Path | None, typer.Option(exists=True, file_okay=False, help="Folder of chains beside the shipped ones.")
    ] = None,
    scans: Annotated[int, typer.Option(min=1, max=64, help="Scans that run at a time, a process each.")] = 1,
    waiting: Annotated[int, typer.Option(min=0, max=1000, help="Scans that wait; more are told to come later.")] = 8,
    dicom: Annotated[Path | None, typer.Option(help="Folder for the chains' DICOM files; none without it.")] = None,
    time_budget: Annotated[
        float, typer.Option(min=0.0, help="time_budget_s of generative scans; 0: nine tenths of --longest.")
    ] = 0.0,
    memory: Annotated[float, typer.Option(min=0.5, help="GiB of memory that a scan may need.")] = 16.0,
    scan_size: Annotated[float, typer.Option(min=0.001, help="GiB that a scan may have.")] = 64.0,
    read_ahead: Annotated[
        float, typer.Option(min=0.0, help="GiB of each scan that waits which are kept in a temporary file.")
    ] = 1.0,
    idle: Annotated[
        float, typer.Option(min=0.1, help="Seconds after which a client that neither sends nor takes is given up.")
    ] = 60.0,
    longest: Annotated[float, typer.Option(min=1.0, help="Seconds that a scan may take, or wait.")] = 3600.0,
    grace: Annotated[float, typer.Option(min=0.0, help="Seconds that running scans have at the server's end.")] = 60.0,
    status_port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="HTTP port of /health, /metrics and the status page.")
    ] = None,
    status_bind: Annotated[str, typer.Option(help="Address of that.")] = "127.0.0.1",
    pacs: Annotated[
        str,
        typer.Option(help="PACS that DICOM goes to: dicom://AE@host:port, dicom-tls://... or https://host/dicom-web."),
    ] = "",
    spool: Annotated[
        Path | None, typer.Option(help="Folder where DICOM waits for the PACS.  [default with --pacs: dicom-spool]")
    ] = None,
    warm: Annotated[str, typer.Option(help="Methods made ready before the first scan; empty: none.")] = "svd_wkgm",
    json_logs: Annotated[bool, typer.Option("--json-logs", help="Log lines as JSON.")] = False,
) -> None:
    """Serve scans: MRD streaming as Gadgetron's client and Siemens FIRE speak it.

    Chains by name are the shipped ones and those of --chains; chains that clients send may have the gadgets of the
    shipped ones only. SIGTERM and Ctrl-C stop it: running scans are finished, new ones refused.
    """
    from gadgets.dicom_output import DicomParameters, spool_and_destination
    from pipelines.server.fork_server import Nursery
    from pipelines.server.listener import Server
    from pipelines.server.processes import allow_descriptors
    from pipelines.server.settings import Limits, ServeSettings
    from pipelines.server.status import StatusServer

    allow_descriptors()
    log_to_stderr(json_logs)
    spool = (spool or Path("dicom-spool")).absolute() if spool or pacs else None
    spool_and_destination(DicomParameters(pacs=pacs, spool=str(spool or "")))
    for option, folder in {"--spool": spool, "--dicom": dicom}.items():
        if folder is not None:
            _check_writable(option, folder)
    limits = Limits(memory_gib=memory, scan_gib=scan_size, ahead_gib=read_ahead, idle_s=idle, scan_s=longest)
    settings = ServeSettings(
        bind=bind,
        port=port,
        chains=chains,
        scans=scans,
        waiting=waiting,
        warm=tuple(filter(None, (name.strip() for name in warm.split(",")))),
        limits=limits,
        time_budget_s=time_budget,
        dicom=dicom,
        pacs=pacs,
        spool=spool,
        grace_s=grace,
    )
    with Nursery() as nursery, contextlib.ExitStack() as stack:
        nursery.start()  # it loads while the server does
        server = Server(settings, nursery)
        stack.callback(server.stop)
        if status_port is not None:
            status = StatusServer(server, status_port, status_bind, spool)
            stack.callback(status.close)
            logging.getLogger("genrecon").info("status on http://%s:%d/", status_bind, status.port)
        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, lambda *_: threading.Thread(target=server.stop, daemon=True).start())
        server.run()


def _check_writable(option: str, folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ReconError(f"{option} {folder}: it cannot be written to ({reason_of(error)}); give another one") from None


@app.command()
def send(
    raw: Annotated[Path, typer.Argument(help="Raw ISMRMRD file (.h5).", show_default=False)],
    config: Annotated[
        str, typer.Option("--config", "-c", help="XML file of a chain, which is sent, or a chain that the server has.")
    ] = DEFAULT_CONFIG,
    host: Annotated[str, typer.Option(help="Server.")] = "localhost",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Its port.")] = 9002,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for images.h5; without it images are counted.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="gadget.property=value, sent as FIRE's parameters; may be repeated."),
    ] = None,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds of silence after which it is given up.")] = 600.0,
) -> None:
    """Send a scan to a server, Gadgetron's or `genrecon serve`, and count its images.

    The exit code is 1 when the server reports an error, is silent, or sends no image.
    """
    from pipelines.send import send as run

    pairs = [text.partition("=") for text in settings or []]
    if not all("." in name.strip(".") and equals for name, equals, _ in pairs):
        raise ReconError("--set: give gadget.property=value, for instance generative_recon.method=cg_sense")
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    result = run(raw, config, address, out=out, parameters={name: value for name, _, value in pairs}, timeout=timeout)
    for text in result.texts:
        errors.print(escape(text))
    console.print(
        f"{result.images} images, the first after {result.first_image_s:.2f} s, the last after "
        f"{result.last_image_s:.2f} s",
        soft_wrap=True,
        highlight=False,
    )


@app.command("install-configs")
def install_configs(
    home: Annotated[
        Path,
        typer.Option("--gadgetron-home", envvar="GADGETRON_HOME", help="Prefix that Gadgetron is installed under."),
    ],
    force: Annotated[bool, typer.Option(help="Overwrite chains that were changed there.")] = False,
) -> None:
    """Copy the shipped chains, as genrecon_NAME.xml, to where a Gadgetron server finds them."""
    from pipelines.install import install_configs as install
    from pipelines.install import python_problem

    for path in install(home, force):
        console.print(str(path), soft_wrap=True, highlight=False)
    problem = python_problem()
    if problem:
        errors.print(f"warning: {problem}; it must be so on the PATH of the server", soft_wrap=True, markup=False)


@app.command()
def chains() -> None:
    """List the shipped chains."""
    from pipelines.chain import shipped_chains

    table = Table()
    table.add_column("chain", no_wrap=True)
    table.add_column("what it does")
    for name, text in shipped_chains().items():
        table.add_row(name, escape(text))
    console.print(table)


@app.command()
def info(raw: Annotated[Path, typer.Argument(help="Raw ISMRMRD file (.h5).", show_default=False)]) -> None:
    """Show what a raw file holds: header, acquisitions, sampling. No patient data are printed."""
    from pipelines.info import describe

    table = Table(title=escape(str(raw)), title_justify="left", show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in describe(raw):
        table.add_row(name, escape(text))
    console.print(table)


def _sizes(text: str, name: str, kind: Callable[[str], Any]) -> tuple[Any, Any, Any]:
    parts = text.lower().replace("x", " ").replace(",", " ").split()
    try:
        values = [kind(part) for part in parts]
    except ValueError:
        values = []
    if len(values) not in {2, 3}:
        raise ReconError(f"simulate: {name} is '{text}'; give X,Y or X,Y,Z, for instance 256,256")
    return values[0], values[1], values[2] if len(values) == 3 else kind("1")


@app.command()
def simulate(
    out: Annotated[Path, typer.Argument(help="Raw file to write (.h5).", show_default=False)],
    matrix: Annotated[str, typer.Option(help="X,Y or X,Y,Z: readout, E1, E2; Z > 1 is a 3D scan.")] = "192,192",
    fov: Annotated[
        str, typer.Option(help="Field of view in mm: X,Y,Z; Z is the slice's or slab's thickness.")
    ] = "220,220,5",
    slices: Annotated[int, typer.Option(help="Slices (2D) or slabs (3D).")] = 1,
    slice_order: Annotated[str, typer.Option(help="sequential or interleaved.")] = "sequential",
    coils: Annotated[int, typer.Option(help="Receive channels.")] = 8,
    repetitions: Annotated[int, typer.Option(help="Repetitions of the whole scan.")] = 1,
    averages: Annotated[int, typer.Option(help="Averages.")] = 1,
    contrasts: Annotated[int, typer.Option(help="Contrasts (echoes).")] = 1,
    sampling: Annotated[str, typer.Option(help="full, uniform, random or poisson (3D only).")] = "uniform",
    acceleration: Annotated[
        float, typer.Option("--acceleration", "-R", help="Acceleration; along E1 when uniform.")
    ] = 2.0,
    acceleration_e2: Annotated[int, typer.Option(help="Acceleration along E2 (uniform 3D).")] = 1,
    calibration: Annotated[str, typer.Option(help="embedded, separate, external, interleaved or none.")] = "embedded",
    calibration_lines: Annotated[int, typer.Option(help="Calibration lines along E1 (and E2).")] = 24,
    partial_fourier: Annotated[float, typer.Option(help="Acquired fraction along E1, above 0.5.")] = 1.0,
    asymmetric_echo: Annotated[float, typer.Option(help="Acquired fraction of the readout, above 0.5.")] = 1.0,
    oversampling: Annotated[float, typer.Option(help="Readout oversampling.")] = 2.0,
    noise: Annotated[float, typer.Option(help="Noise standard deviation relative to the object's maximum.")] = 0.01,
    noise_scan: Annotated[bool, typer.Option(help="Begin with a noise measurement.")] = True,
    object_scale: Annotated[float, typer.Option(help="Object size relative to the field of view; > 1 folds it.")] = 1.0,
    vendor: Annotated[str, typer.Option(help='"SIEMENS", "GE MEDICAL SYSTEMS", "Philips" or "generic".')] = "SIEMENS",
    images: Annotated[
        Path | None, typer.Option(help="Object to scan instead of the phantom: .npy, (slice, y, x), real or complex.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of noise and sampling.")] = 0,
) -> None:
    """Write a simulated raw scan with known truth (stored beside the raw data as dataset/truth)."""
    from pipelines.simulation import simulate as simulation

    given = None
    if images is not None:
        import numpy as np

        try:
            given = np.load(images, allow_pickle=False)
        except (OSError, ValueError) as error:
            raise ReconError(
                f"{images}: cannot be read as .npy ({one_line(error)}); give an array (slice, y, x)"
            ) from None
    scan_matrix = _sizes(matrix, "--matrix", int)
    extent = _sizes(fov, "--fov", float)
    try:
        scan = simulation.simulate(
            simulation.SimulationSettings(
                matrix=scan_matrix,
                field_of_view_mm=extent,
                slices=slices,
                slice_order=slice_order,
                coils=coils,
                repetitions=repetitions,
                averages=averages,
                contrasts=contrasts,
                sampling=sampling,
                acceleration=acceleration,
                acceleration_e2=acceleration_e2,
                calibration=calibration,
                calibration_lines=calibration_lines,
                partial_fourier=partial_fourier,
                asymmetric_echo=asymmetric_echo,
                readout_oversampling=oversampling,
                noise_level=noise,
                noise_scan=noise_scan,
                object_scale=object_scale,
                vendor=vendor,
                seed=seed,
            ),
            given,
        )
    except ValueError as error:
        raise ReconError(f"simulate: {one_line(ReconError(str(error)))}") from None
    _write_simulation(out, scan)
    console.print(f"{out}: {scan.number_of_acquisitions} acquisitions", highlight=False, soft_wrap=True)


def _write_simulation(out: Path, scan: Any) -> None:
    from pipelines.replay import write_failure
    from pipelines.simulation.simulate import write_raw

    written = 0
    with progress_bar(scan.number_of_acquisitions, "acquisitions") as update:

        def progress(count: int) -> None:
            nonlocal written
            written += count
            update(written, "simulating")

        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            write_raw(out, scan, progress)
        except OSError as error:
            raise ReconError(
                f"{out}: cannot write there ({write_failure(error)}); free space or choose another file"
            ) from None


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the raw file and the results.")] = Path(
        "genrecon-demo"
    ),
    config: Annotated[str, typer.Option("--config", "-c", help="Chain to run.")] = "svd_wkgm",
) -> None:
    """Simulate a multi-coil multi-slice scan, reconstruct it through the shipped chain, compare with the truth."""
    from pipelines.chain import read_chain
    from pipelines.demo import DEMO_SCAN, quality
    from pipelines.replay import replay as run
    from pipelines.simulation.simulate import simulate as simulation

    read_chain(config)  # a wrong name is told before the simulation
    raw = out / "raw.h5"
    _write_simulation(raw, simulation(DEMO_SCAN))
    with progress_bar(simulation(DEMO_SCAN).number_of_acquisitions, "acquisitions") as update:
        result = run(
            raw, config, out, progress=lambda lines, images: update(lines, f"{images} images") if lines else None
        )
    _print_result(result)
    table = Table(title="against the truth", title_justify="left")
    for column in ("slice", "PSNR (dB)", "SSIM"):
        table.add_column(column, justify="right")
    for label, (psnr, ssim) in quality(raw, out):
        table.add_row(label, f"{psnr:.2f}", f"{ssim:.4f}")
    console.print(table)
    for name in ("dicom", "images.h5", *(s.montage.name for s in result.series.values() if s.montage)):
        console.print(str(result.folder / name), highlight=False, soft_wrap=True)


def _numbers(texts: list[str] | None, option: str, kind: Callable[[str], Any]) -> tuple[Any, ...]:
    """Numbers of options that may be repeated or hold several, with commas."""
    parts = [part.strip() for text in texts or [] for part in text.split(",")]
    try:
        return tuple(kind(part) for part in parts)
    except ValueError:
        raise ReconError(f"{option} is '{','.join(parts)}'; give numbers, with commas between them") from None


_Data = Annotated[
    list[Path],
    typer.Argument(
        help="Fully sampled scans: raw files (.h5), or arrays (.npy) of images (slice, y, x).", show_default=False
    ),
]
_OfKspace = Annotated[
    bool, typer.Option("--kspace", help="Arrays are k-space (coil, y, x) or (slice, coil, y, x) instead.")
]
_Coils = Annotated[int, typer.Option(min=1, max=64, help="Birdcage coils that see the images of arrays.")]
_Slices = Annotated[
    list[str] | None, typer.Option("--slices", help="Numbers of the slices, from 0, with commas.  [default: all]")
]
_Masks = Annotated[
    list[str] | None,
    typer.Option("--mask", help="Masks: .npy or .npz of bool (y, x); FILE:NAME for one of several; may be repeated."),
]
_Patterns = Annotated[
    list[str] | None,
    typer.Option(
        "--pattern",
        help="Masks made here, PATTERN:ACCELERATION: poisson, uniform or random_lines; may be repeated.  "
        "[default: poisson:4 where there is no --mask]",
    ),
]
_Noise = Annotated[
    list[str] | None,
    typer.Option("--noise", help="Noise added to k-space, relative to the image's maximum, with commas."),
]
_Methods = Annotated[
    list[str] | None,
    typer.Option(
        "--method",
        "-m",
        help="METHOD or METHOD:property=value,property=value; may be repeated.  [default: all that can run here]",
    ),
]
_Threads = Annotated[int, typer.Option(min=0, help="Threads of each process; 0: what there is.")]


def _benchmark_input(
    data: list[Path],
    kspace: bool,
    coils: int,
    slices: list[str] | None,
    masks: list[str] | None,
    patterns: list[str] | None,
    noise: list[str] | None,
    methods: list[str] | None,
) -> tuple[list[Any], list[Any]]:
    """Cases and methods of the options that benchmark and stability share."""
    from pipelines.evaluation.benchmark import BenchmarkCases, default_entries, read_entry

    entries = [read_entry(text) for text in methods] if methods else default_entries()
    chosen = BenchmarkCases(
        data=tuple(data),
        kspace=kspace,
        coils=coils,
        slices=_numbers(slices, "--slices", int),
        masks=tuple(masks or ()),
        patterns=tuple(patterns or ()),
        noise=_numbers(noise, "--noise", float) or (0.0,),
    )
    return chosen.cases(), entries


@app.command()
def benchmark(
    data: _Data,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for tables and images; an earlier run there goes on.")
    ] = Path("genrecon-benchmark"),
    kspace: _OfKspace = False,
    coils: _Coils = 1,
    slices: _Slices = None,
    masks: _Masks = None,
    patterns: _Patterns = None,
    noise: _Noise = None,
    methods: _Methods = None,
    metrics: Annotated[
        str, typer.Option(help="Columns printed, with commas: psnr, ssim, nrmse, hfen, each also as NAME_object.")
    ] = "psnr,ssim",
    repeats: Annotated[int, typer.Option(min=0, help="Timed calls of each, after a first one; the median counts.")] = 1,
    workers: Annotated[int, typer.Option(min=1, help="Processes at a time; times are best taken with one.")] = 1,
    threads: _Threads = 0,
    dask: Annotated[str, typer.Option(help="Dask scheduler (tcp://HOST:PORT) whose workers do the work.")] = "",
    page: Annotated[bool, typer.Option("--report/--no-report", help="Make the page of `genrecon report` too.")] = True,
) -> None:
    """Compare methods on fully sampled scans that are undersampled here.

    Leaves results.csv, results.json, the images and report.html in the folder.
    """
    from pipelines.evaluation.benchmark import benchmark as run
    from pipelines.evaluation.benchmark import check_metrics, summary

    columns = check_metrics(metrics)
    cases, entries = _benchmark_input(data, kspace, coils, slices, masks, patterns, noise, methods)
    with progress_bar(len(cases) * len(entries), "reconstructions") as update:
        results = run(
            cases,
            entries,
            out,
            repeats=repeats,
            workers=workers,
            threads=threads,
            dask=dask,
            progress=lambda done, _all, text: update(done, text),
        )
    console.print(summary(results, columns))
    for row in results["rows"]:
        if row["error"]:
            console.print(
                escape(f"{row['case']}, {row['method']}: {row['error']}"),
                style="yellow",
                soft_wrap=True,
                highlight=False,
            )
    console.print(str(out / "results.csv"), highlight=False, soft_wrap=True)
    if all(row["error"] for row in results["rows"]):
        raise ReconError("benchmark: no reconstruction succeeded; see the lines above")
    if page:
        report(out)


@app.command()
def stability(
    data: _Data,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for tables and pictures; a run there goes on.")
    ] = Path("genrecon-stability"),
    kspace: _OfKspace = False,
    coils: _Coils = 1,
    slices: _Slices = None,
    masks: _Masks = None,
    patterns: _Patterns = None,
    noise: _Noise = None,
    methods: _Methods = None,
    threads: _Threads = 0,
) -> None:
    """Test methods as learned reconstruction is doubted: small details, worst-case noise, other masks, more samples."""
    from pipelines.evaluation.stability import PARTS, tables
    from pipelines.evaluation.stability import stability as run

    cases, entries = _benchmark_input(data, kspace, coils, slices, masks, patterns, noise, methods)
    with progress_bar(len(cases) * len(entries) * len(PARTS), "parts") as update:
        results = run(cases, entries, out, threads=threads, progress=lambda done, _all, text: update(done, text))
    for table in tables(results):
        console.print(table)
    console.print(str(out), highlight=False, soft_wrap=True)


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="Folder of a benchmark or a replay.", show_default=False)],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="File to write.  [default: FOLDER/report.html]")
    ] = None,
) -> None:
    """Make one HTML page of a benchmark or a replay: images, errors, zooms, bars, timing; no patient data."""
    from pipelines.evaluation.report import report as run

    console.print(str(run(folder, out)), highlight=False, soft_wrap=True)


@app.command()
def listen(
    port: Annotated[
        int, typer.Argument(min=1, max=65535, help="Port that <connect port=...> names.", show_default=False)
    ],
    gadget: Annotated[str, typer.Argument(help="MODULE:CLASS of a gadget.")] = "gadgets.reconstruction:Reconstruction",
    bind: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
) -> None:
    """Keep a gadget warm for Gadgetron's <connect>: it serves scan after scan until it is stopped."""
    import importlib

    from gadgets.stream import Gadget
    from gadgets.stream.listener import listen as serve

    module, _, target = gadget.partition(":")
    try:
        kind = getattr(importlib.import_module(module), target)
    except (ImportError, AttributeError, ValueError) as error:
        raise ReconError(f"listen: {gadget} cannot be loaded ({one_line(error)}); give MODULE:CLASS") from None
    if not (isinstance(kind, type) and issubclass(kind, Gadget)):
        raise ReconError(f"listen: {gadget} is not a gadget; give MODULE:CLASS of one")
    log_to_stderr()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # the usual way to stop it
    with contextlib.suppress(KeyboardInterrupt):
        serve(port, kind, bind)


@app.command()
def deliver(
    spool: Annotated[
        Path, typer.Option(help="Folder that the property 'spool' of dicom_output names.", show_default=False)
    ],
    once: Annotated[
        bool, typer.Option("--once", help="Try every file once and end; exit code 1 when files are left.")
    ] = False,
    status: Annotated[bool, typer.Option("--status", help="Show what waits for which PACS; send nothing.")] = False,
    retry: Annotated[
        bool, typer.Option("--retry-failed", help="First put back the files that a PACS refused for good.")
    ] = False,
) -> None:
    """Send the DICOM files of a spool to their PACS, and those that are added to it, until it is stopped.

    Scans send their files themselves, and `genrecon serve` those of its spool; this sends what they left when the PACS
    was away. It runs beside them, and as a service.
    """
    from gadgets.dicom.spool import deliver as serve
    from gadgets.dicom.spool import deliver_once, retry_failed, spool_status

    if (once or status or retry) and not spool.exists():
        raise ReconError(f"deliver: there is no spool {spool}; give the folder that the property 'spool' names")
    if retry:
        console.print(f"{retry_failed(spool)} files put back", highlight=False)
    if status:
        for queue in spool_status(spool):
            console.print(escape(f"{queue.pacs}: {queue.text()} ({queue.folder})"), soft_wrap=True, highlight=False)
        return
    log_to_stderr()
    if once:
        if left := deliver_once(spool):
            raise ReconError(f"deliver: {left} files are still in the spool; see the lines above")
        return
    if not spool.exists():
        logging.getLogger("genrecon").info("there is no spool %s yet; it is looked for again and again", spool)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # the usual way to stop it
    with contextlib.suppress(KeyboardInterrupt):
        serve(spool, threading.Event())


def main() -> None:
    """Entry point: errors a user can meet end in one line and exit code 1."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that cannot show a character is no error
    settle_allocator()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # runs the clean-up of half-written files
    # Tracebacks that libraries print from destructors (HDF5 on a full disk) go to the log.
    logger = logging.getLogger("genrecon")
    sys.excepthook = lambda _kind, error, _trace: logger.info("traceback", exc_info=error)
    sys.unraisablehook = lambda about: logger.info("traceback", exc_info=about.exc_value)
    try:
        typer.main.get_command(app)()  # app() would set an excepthook of its own
    except SystemExit as end:
        if not end.code:
            raise
        _exit_now(end.code if isinstance(end.code, int) else 1)
    except Exception as error:
        print_error(error)
        _exit_now(1)


def _exit_now(code: int) -> NoReturn:
    """End the process without tearing it down: gadgets that still compute, and HDF5 on a full disk, crash in that."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    os._exit(code)

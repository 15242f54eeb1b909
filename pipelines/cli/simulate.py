"""`genrecon simulate`: raw files with known truth."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from gadgets.errors import ReconError, one_line
from pipelines.cli.console import print_line, progress_bar


def simulate(
    out: Annotated[
        Path, typer.Argument(help="Raw file to write: ISMRMRD (.h5), or an MRD 2 stream (.mrd).", show_default=False)
    ],
    matrix: Annotated[str, typer.Option(help="X,Y or X,Y,Z: samples along readout, E1 and E2; Z > 1: 3D.")] = "192,192",
    fov: Annotated[
        str, typer.Option(help="Field of view X,Y,Z in mm; Z is the thickness of the slice or slab.")
    ] = "220,220,5",
    slices: Annotated[int, typer.Option(help="Slices (2D) or slabs (3D).")] = 1,
    slice_order: Annotated[str, typer.Option(help="sequential or interleaved.")] = "sequential",
    coils: Annotated[int, typer.Option(help="Receive channels.")] = 8,
    repetitions: Annotated[int, typer.Option(help="Repetitions.")] = 1,
    averages: Annotated[int, typer.Option(help="Averages.")] = 1,
    contrasts: Annotated[int, typer.Option(help="Contrasts (echoes).")] = 1,
    sampling: Annotated[str, typer.Option(help="full, uniform, random or poisson (3D only).")] = "uniform",
    acceleration: Annotated[
        float | None,
        typer.Option(
            "--acceleration", "-R", help="Acceleration; with uniform sampling, along E1.  [default: 2; 1 if full]"
        ),
    ] = None,
    acceleration_e2: Annotated[int, typer.Option(help="Acceleration along E2 (uniform sampling in 3D).")] = 1,
    calibration: Annotated[str, typer.Option(help="embedded, separate, external, interleaved or none.")] = "embedded",
    calibration_lines: Annotated[int, typer.Option(help="Calibration lines along E1 (and E2).")] = 24,
    partial_fourier: Annotated[float, typer.Option(help="Acquired fraction along E1, above 0.5.")] = 1.0,
    asymmetric_echo: Annotated[float, typer.Option(help="Acquired fraction of the readout, above 0.5.")] = 1.0,
    oversampling: Annotated[float, typer.Option(help="Readout oversampling.")] = 2.0,
    noise: Annotated[float, typer.Option(help="Standard deviation of noise, relative to the object's maximum.")] = 0.01,
    noise_scan: Annotated[bool, typer.Option(help="Begin with a noise measurement.")] = True,
    object_scale: Annotated[
        float, typer.Option(help="Size of the object relative to the field of view; above 1 it folds over.")
    ] = 1.0,
    vendor: Annotated[str, typer.Option(help='"SIEMENS", "GE MEDICAL SYSTEMS", "Philips" or "generic".')] = "SIEMENS",
    images: Annotated[
        Path | None, typer.Option(help="Object instead of the phantom: .npy, (slice, y, x), real or complex.")
    ] = None,
    brain: Annotated[
        bool,
        typer.Option("--brain", help="Object instead of the phantom: the brain of `genrecon demo`, 2D, 1 to 5 slices."),
    ] = False,
    seed: Annotated[int, typer.Option(help="Seed of noise and sampling.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is no simulated scan.")] = False,
) -> None:
    """Write a simulated raw scan; the true image is stored in it as dataset/truth, but not in an MRD 2 stream."""
    from pipelines.simulation import Simulation, SimulationSettings
    from pipelines.simulation.brain import brain_scan

    if not force and out.is_file() and not _is_simulated(out):
        raise ReconError(f"{out}: is there already, and is no simulated scan; choose another name, or add --force")
    if brain and images is not None:
        raise ReconError("simulate: --brain and --images each name an object; give one of them")
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
        settings = SimulationSettings(
            matrix=scan_matrix,
            field_of_view_mm=extent,
            slices=slices,
            slice_order=slice_order,
            coils=coils,
            repetitions=repetitions,
            averages=averages,
            contrasts=contrasts,
            sampling=sampling,
            acceleration=acceleration if acceleration is not None else 1.0 if sampling == "full" else 2.0,
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
        )
        scan = brain_scan(settings) if brain else Simulation(settings, given)
    except ValueError as error:
        raise ReconError(f"simulate: {one_line(ReconError(str(error)))}") from None
    write_with_progress(out, scan)
    print_line(f"{out}: {scan.number_of_acquisitions} acquisitions")


def _is_simulated(path: Path) -> bool:
    """Whether a file is a scan that `simulate` wrote, by the truth in it."""
    import h5py

    try:
        with h5py.File(path) as file:
            return "dataset/truth" in file
    except OSError:
        return False


def _sizes(text: str, name: str, kind: Callable[[str], Any]) -> tuple[Any, Any, Any]:
    parts = text.lower().replace("x", " ").replace(",", " ").split()
    try:
        values = [kind(part) for part in parts]
    except ValueError:
        values = []
    if len(values) not in {2, 3}:
        raise ReconError(f"simulate: {name} is '{text}'; give X,Y or X,Y,Z, for instance 256,256")
    return values[0], values[1], values[2] if len(values) == 3 else kind("1")


def write_with_progress(out: Path, scan: Any) -> None:
    """Write a simulated scan, by the name of the file as an MRD 2 stream.

    Raises ReconError when the file cannot be written.
    """
    from pipelines.simulation import write_raw
    from pipelines.staging import write_failure

    written = 0
    with progress_bar(scan.number_of_acquisitions, "acquisitions") as update:

        def progress(count: int) -> None:
            nonlocal written
            written += count
            update(written, "simulating")

        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            if out.suffix == ".mrd":
                _write_stream(out, scan, progress)
            else:
                write_raw(out, scan, progress)
        except OSError as error:
            raise ReconError(
                f"{out}: cannot write there ({write_failure(error)}); free space or choose another file"
            ) from None


def _write_stream(out: Path, scan: Any, progress: Callable[[int], None]) -> None:
    """Write a simulated scan as a stream of the version of MRD 2 that is installed."""
    from pipelines.mrd2.writing import installed_schema, write_scan
    from pipelines.pipes import write_all
    from pipelines.staging import staged_file

    def lines() -> Iterator[Any]:
        for line in scan.acquisitions():
            yield line
            progress(1)

    schema = installed_schema()
    with staged_file(out) as descriptor:
        write_scan(lambda data: write_all(descriptor, data), scan.header, lines(), schema)

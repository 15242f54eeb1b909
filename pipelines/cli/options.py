"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from gadgets.errors import ReconError

DEFAULT_CHAIN = "cg_sense"  # linear: the image holds what was measured and nothing that a prior adds

RawFile = Annotated[
    Path,
    typer.Argument(help="Raw file: ISMRMRD or fastMRI (.h5), an MRD stream; - for standard input.", show_default=False),
]
Group = Annotated[
    str,
    typer.Option(help="Of a file with several measurements, the one to take; `genrecon info` lists them."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]

# Of benchmark and stability.
Data = Annotated[
    list[Path],
    typer.Argument(
        help="Fully sampled scans: raw files (.h5; ISMRMRD or fastMRI), or arrays (.npy, or BART's .cfl) of images "
        "(slice, y, x).",
        show_default=False,
    ),
]
ArraysAreKspace = Annotated[
    bool,
    typer.Option(
        "--kspace", help="The arrays are k-space, (coil, y, x) or (slice, coil, y, x); in .cfl BART's dimensions."
    ),
]
Coils = Annotated[int, typer.Option(min=1, max=64, help="Number of simulated coils that receive images of arrays.")]
Slices = Annotated[
    list[str] | None, typer.Option("--slices", help="Slice numbers from 0, separated by commas.  [default: all]")
]
Masks = Annotated[
    list[str] | None,
    typer.Option("--mask", help="Mask file: .npy or .npz of bool (y, x); FILE:NAME for one of several; repeatable."),
]
Patterns = Annotated[
    list[str] | None,
    typer.Option(
        "--pattern",
        help="Generated mask, PATTERN:ACCELERATION, with poisson, uniform or random_lines; repeatable.  "
        "[default: poisson:4 without --mask]",
    ),
]
Noise = Annotated[
    list[str] | None,
    typer.Option(
        "--noise",
        help="Standard deviation of noise added to k-space, relative to the image's maximum; several with commas.",
    ),
]
Methods = Annotated[
    list[str] | None,
    typer.Option(
        "--method",
        "-m",
        help="METHOD or METHOD:property=value,property=value; repeatable.  [default: all that can run here]",
    ),
]
Threads = Annotated[int, typer.Option(min=0, help="Threads of each process; 0: one a core.")]


def cases_and_methods(
    data: list[Path],
    kspace: bool,
    coils: int,
    slices: list[str] | None,
    masks: list[str] | None,
    patterns: list[str] | None,
    noise: list[str] | None,
    methods: list[str] | None,
) -> tuple[list[Any], list[Any]]:
    """Read what benchmark and stability run: their cases and their methods."""
    from pipelines.evaluation.cases import BenchmarkCases
    from pipelines.evaluation.entries import default_entries, read_entry

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


def _numbers(texts: list[str] | None, option: str, kind: Callable[[str], Any]) -> tuple[Any, ...]:
    """Numbers of an option that may be repeated and may hold several, separated by commas."""
    parts = [part.strip() for text in texts or [] for part in text.split(",")]
    try:
        return tuple(kind(part) for part in parts)
    except ValueError:
        raise ReconError(f"{option} is '{','.join(parts)}'; give numbers, separated by commas") from None

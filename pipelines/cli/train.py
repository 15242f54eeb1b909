"""`genrecon train`: learn a prior from fully sampled scans."""

from __future__ import annotations

import datetime
import os
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from gadgets.errors import ReconError, one_line
from pipelines.cli.console import console, progress_bar

# Names that --set also knows settings by.
SHORT_NAMES = {"channels": "base_channels", "save_every": "save_every_s"}


def train(
    context: typer.Context,
    kind: Annotated[str, typer.Argument(help="What to train: wkgm, hkgm, or another kind of prior.")],
    data: Annotated[
        list[Path] | None,
        typer.Option(
            "--data",
            "--scan",
            help="Fully sampled raw file (.h5; ISMRMRD or fastMRI), complex images (.npy: slice, y, x; or BART's .cfl) "
            "or magnitudes, whose phases are synthesised (DICOM, NIfTI, a folder of them, .npy); may be repeated. "
            "HKGM: one multi-coil scan, or k-space (.npy: coil, y, x; or .cfl).",
        ),
    ] = None,
    also: Annotated[
        list[Path] | None,
        typer.Option(
            "--also",
            help="Images of something else (photographs) to learn structure from as well; as --data, may be repeated.",
        ),
    ] = None,
    initial: Annotated[
        Path | None,
        typer.Option("--init", help="Weights (.safetensors) of the same kind to begin with: fine-tuning."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="Weights to write; card (.json) and loss curve (.png) go next to them.  [default: KIND.safetensors]",
        ),
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="name=value of a setting of the kind; may be repeated.")
    ] = None,
    list_settings: Annotated[bool, typer.Option("--list", help="List the settings of the kind, and end.")] = False,
    kspace: Annotated[bool, typer.Option("--kspace", help="Arrays are k-space (slice, coil, y, x).")] = False,
    hold_out: Annotated[int, typer.Option(min=0, help="Images at the end to measure the quality on.")] = 0,
    calibration: Annotated[
        bool, typer.Option("--calibration", help="HKGM: learn from the fully sampled centre of an undersampled scan.")
    ] = False,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    description: Annotated[str, typer.Option(help="Of the data, for the card.")] = "",
    licence: Annotated[str, typer.Option(help="Of the weights, for the card.")] = "not given: ask the author",
    intended_use: Annotated[str, typer.Option(help="For the card.")] = "",
) -> None:
    """Learn a prior from fully sampled scans or from magnitude images.

    genrecon train KIND --list names all settings of a kind. Each can be set by --set name=value or as an option of its
    own, --name value. The same command goes on where it was killed. On several GPUs or machines: torchrun
    --nproc-per-node 4 -m pipelines.cli train wkgm --data ...
    """
    from pipelines.train import INTENDED_USE, TrainingJob, recipe_of
    from pipelines.train import train as run
    from priors.extras import EXTRAS, require
    from priors.learning.recipe import explanations, settable, stage_text, with_settings

    require(*EXTRAS["train"])
    recipe = recipe_of(kind)
    if list_settings:
        table = Table(title=f"settings of {kind}, with their defaults", title_justify="left", show_header=False)
        texts = explanations(recipe.options())
        for name, value in settable(recipe.options()):
            shown = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
            table.add_row(name, shown, escape(texts.get(name, "")))
        console.print(table)
        return
    pairs = _pairs(settings or []) | _extra_options(context.args)
    try:
        options = with_settings(recipe.options(), {SHORT_NAMES.get(name, name): text for name, text in pairs.items()})
        job = TrainingJob(
            kind=kind,
            data=tuple(data or ()),
            out=out or Path(f"{kind}.safetensors"),
            options=options,
            auxiliary=tuple(also or ()),
            initial=initial,
            kspace=kspace,
            hold_out=hold_out,
            calibration=calibration,
            description=description,
            licence=licence,
            intended_use=intended_use or INTENDED_USE,
            device=device,
        )
    except ValueError as error:
        raise ReconError(f"train: {one_line(ReconError(str(error)))}") from None
    if os.environ.get("RANK", "0") != "0":  # of a torchrun: the first process reports
        run(job)
        return
    pace = _Pace()
    with progress_bar(100, "%") as update:
        card = run(
            job,
            lambda stage, done, all_, loss: update(
                100 * done // all_, f"{stage_text(stage, loss)}, {pace(stage, done, all_)}"
            ),
        )
    table = Table(title=f"{job.out}: {card.training_data}", title_justify="left", show_header=False)
    for name, value in card.quality.items():
        table.add_row(escape(name), f"{value:.4f}")
    console.print(table)
    console.print(
        f"use it: genrecon replay scan.h5 {_chain(kind)} --set generative_recon.prior={job.out}", soft_wrap=True
    )


class _Pace:
    """Steps a second of a stage of training since this call began, and the time it has left."""

    def __init__(self) -> None:
        self._stage, self._first, self._began = "", 0, 0.0

    def __call__(self, stage: str, done: int, all_: int) -> str:
        now = time.monotonic()
        if stage != self._stage:
            self._stage, self._first, self._began = stage, done, now
        if done == self._first or now == self._began:
            return "pace not known yet"
        pace = (done - self._first) / (now - self._began)
        left = datetime.timedelta(seconds=round((all_ - done) / pace))
        return f"{pace:.2g} steps/s, {left} left"


def _chain(kind: str) -> str:
    """Options of `genrecon replay` that use weights of a kind."""
    from pipelines.chain import shipped_chains

    name, _, variant = kind.partition(":")
    if name in shipped_chains():
        return f"-c {'svd_wkgm' if name == 'wkgm' else name}"
    chosen = f"-c generative --set generative_recon.method={name}"
    return chosen + (f" --set generative_recon.variant={variant}" if variant else "")


def _pairs(texts: list[str]) -> dict[str, str]:
    """Settings by name, of name=value texts."""
    pairs = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise ReconError(f"train: --set is '{text}'; give name=value")
        pairs[name.strip()] = value.strip()
    return pairs


def _extra_options(arguments: list[str]) -> dict[str, str]:
    """Settings that were given as options of their own: --name value, --name=value, --name or --no-name."""
    pairs: dict[str, str] = {}
    rest = list(arguments)
    while rest:
        option = rest.pop(0)
        if not option.startswith("--"):
            raise ReconError(f"train: '{option}' is not expected here; give --name value, or --set name=value")
        name, equals, value = option[2:].partition("=")
        name = name.replace("-", "_")
        if equals:
            pairs[name] = value
        elif rest and not rest[0].startswith("--"):
            pairs[name] = rest.pop(0)
        elif name.startswith("no_"):
            pairs[name.removeprefix("no_")] = "false"
        else:
            pairs[name] = "true"
    return pairs

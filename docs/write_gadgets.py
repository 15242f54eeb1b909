"""Write docs/gadgets.md from the gadgets' code: `python docs/write_gadgets.py`."""

from __future__ import annotations

import dataclasses
import sys
import typing
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from gadgets.coil_compression import CoilCompression  # noqa: E402
from gadgets.dicom_output import DicomOutput  # noqa: E402
from gadgets.espirit import Espirit  # noqa: E402
from gadgets.generative_recon import GenerativeRecon  # noqa: E402
from gadgets.image_lines import ImageLines  # noqa: E402
from gadgets.nifti_output import NiftiOutput  # noqa: E402
from gadgets.reconstruction import Reconstruction  # noqa: E402
from gadgets.solvers.methods import all_methods, options_of  # noqa: E402
from gadgets.stream import Gadget  # noqa: E402
from gadgets.twins import TWINS  # noqa: E402

HEAD = """# Gadgets and their properties

Written by `python docs/write_gadgets.py` from the code; do not edit it here.

In a chain a property is `<property name="map_sets" value="2"/>` inside the gadget's `<configuration>`; on the command
line it is `--set espirit.map_sets=2`, with the name that the gadget has in the chain. A property marked *local* touches
files, hosts or later scans: a chain that a client sends to `genrecon serve` may not set it.

- `GenerativeRecon` expects the gadget `GenericReconFieldOfViewAdjustmentGadget` of the shipped chains behind it: the
  geometry it writes is that of the images after it.
- Calibration comes from the reference lines (embedded, separate, external, or interleaved over repetitions), or from
  the fully sampled centre of k-space. A scan that has neither gets its centre completed by low rank; its images carry
  a warning in their meta attributes and DICOM comments.
- Two map sets (the shipped chains' setting) hold anatomy larger than the field of view.
- Readouts that are no line of an image (navigators, phase stabilization, feedback, dummies ...) are left out and
  counted. Lines read backwards are turned round and brought into the phase of the others, from phase correction
  readouts or from the data. EPI is refused. In process `ImageLines` below does it at the head of every chain; on a
  real Gadgetron put it first in the stream for such scans, else the gadgets repair in the buffers what can be.
- The slices of an interleaved scan are complete only at its end; until then all of them are in memory.
"""
TWIN_HEAD = """
## Twins of Gadgetron's C++ gadgets

On a real Gadgetron server its own C++ gadgets run. In process, in `genrecon serve` and in `genrecon replay`, these
Python twins with the same class and property names do. Other C++ gadgets need a real server.
"""


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else str(value)


def _row(field: dataclasses.Field[typing.Any], kind: type) -> str:
    meta = field.metadata
    default = str(field.default).lower() if kind is bool else str(field.default)
    low, high = meta["minimum"], meta["maximum"]
    if meta["choices"]:
        allowed = ", ".join(choice or "(empty)" for choice in meta["choices"])
    elif kind is bool:
        allowed = "true, false"
    elif low is not None and high is not None:
        allowed = f"{_number(low)} to {_number(high)}"
    else:
        kind_name = {int: "whole number", float: "number"}.get(kind, "text")
        allowed = f"{_number(low)} or more" if low is not None else kind_name
    local = " *(local)*" if meta["local"] else ""
    meaning = meta["description"].replace("|", "\\|")
    return f"| `{field.name}` | {f'`{default}`' if default else ''} | {allowed} | {meaning}{local} |"


def _section(gadget: type[Gadget], level: str = "##") -> str:
    """One gadget: what it does, how a chain names it, and its properties."""
    text = [f"\n{level} {gadget.__name__}\n", " ".join((gadget.__doc__ or "").split("\n\n")[0].split())]
    if gadget.__name__ not in TWINS:
        text.append(f"\nModule `{gadget.__module__}`, target `{gadget.__name__}`.")
    fields = dataclasses.fields(gadget.Parameters)
    if fields:
        hints = typing.get_type_hints(gadget.Parameters)
        text += ["", "| property | default | allowed | meaning |", "|---|---|---|---|"]
        text += [_row(field, hints[field.name]) for field in fields]
    return "\n".join(text) + "\n"


def gadgets_page() -> str:
    """The text of docs/gadgets.md."""
    page = HEAD + _section(CoilCompression) + _section(Espirit) + _section(GenerativeRecon)
    page += "\nProperties that only some methods take (methods.md describes the methods):\n\n"
    page += "| methods | properties |\n|---|---|\n"
    methods_with: dict[tuple[str, ...], list[str]] = {}
    for name in all_methods():
        methods_with.setdefault(options_of(name), []).append(f"`{name}`")
    for options, methods in methods_with.items():
        page += f"| {', '.join(methods)} | {', '.join(f'`{option}`' for option in options) or 'none'} |\n"
    page += _section(Reconstruction)
    page += "\nProperties are `member.property` of " + ", ".join(f"`{name}`" for name in Reconstruction.members) + ".\n"
    page += _section(DicomOutput) + _section(NiftiOutput) + _section(ImageLines)
    return page + TWIN_HEAD + "".join(_section(twin, "###") for twin in TWINS.values())


if __name__ == "__main__":
    (ROOT / "docs" / "gadgets.md").write_text(gadgets_page())

"""The container recipe of a package: docs/Containerfile with the label, the chains and the site's parameters in it."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gadgets.errors import ReconError
from pipelines.openrecon.label import LABEL_NAME, encoded
from pipelines.openrecon.site import Site

RECIPE = Path("docs") / "Containerfile"
CUDA_INDEX = "https://download.pytorch.org/whl/cu118"  # the newest CUDA that Open Recon's hosts run
BEGIN, END = 'ENV GENRECON_OPTIONS=""\n', "# end of scanner\n"
FOLDER = "/etc/genrecon"


def source_tree(given: Path | None) -> Path:
    """The copy of this project that a package is made from.

    Raises ReconError where there is none: an installed package has no recipe.
    """
    for folder in [given] if given else [Path(__file__).parents[2], Path.cwd()]:
        if (folder / RECIPE).is_file() and (folder / "setup.cfg").is_file():
            return folder.resolve()
    raise ReconError(
        f"{given or 'here'}: no copy of this project; run the command in a git clone, or name it by --source"
    )


def recipe(
    source: Path, label: Mapping[str, Any], site: Site, own_chains: Mapping[str, bytes], options: str, gpu: bool
) -> str:
    """Text of the recipe. It holds all that it needs besides the source tree, and ends with the stage for scanners.

    Parameters
    ----------
    source : of `source_tree`
    label : of `make_label`
    site : whose parameters the server must know
    own_chains : XML of chains that are not shipped, by name
    options : of `genrecon serve`
    gpu : whether PyTorch is to use a GPU
    """
    text = (source / RECIPE).read_text()
    if BEGIN not in text or END not in text:
        raise ReconError(f"{source / RECIPE}: the stage for scanners is not as this version of the command has it")
    files = {f"chains/{name}.xml": xml for name, xml in own_chains.items()}
    if site.parameters:
        files["site.json"] = json.dumps({"parameters": list(site.parameters)}).encode()
    written = [
        f"RUN echo {base64.b64encode(data).decode()} | base64 -d > {FOLDER}/{name}" for name, data in files.items()
    ]
    lines = [f'LABEL "{LABEL_NAME}"="{encoded(label)}"', *written, f'ENV GENRECON_OPTIONS="{options}"', ""]
    text = text.partition(END)[0].replace(BEGIN, "\n".join(lines))
    return text.replace("https://download.pytorch.org/whl/cpu", CUDA_INDEX) if gpu else text

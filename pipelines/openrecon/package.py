"""Writes what a package for the scanner is built from: label, container recipe, manual, scripts."""

from __future__ import annotations

import json
import stat
import subprocess
import uuid
from dataclasses import dataclass
from importlib import metadata, resources
from pathlib import Path
from typing import Any

import jinja2

from gadgets.errors import ReconError
from pipelines.chain import read_chain, shipped_chains
from pipelines.openrecon.label import PORT, make_label, offered_chains, package_name
from pipelines.openrecon.manual import write_manual
from pipelines.openrecon.recipe import recipe, source_tree
from pipelines.openrecon.site import Site, check_properties
from pipelines.server.chain_names import plain_chain_name
from pipelines.staging import staged_folder

LABEL_FILE = "OpenReconLabel.json"
BUILD, CHROOT = "build.sh", "chroot.sh"


@dataclass(frozen=True)
class Package:
    """A package's folder.

    Parameters
    ----------
    folder : that was written
    name : of the package's files
    """

    folder: Path
    name: str


def write_package(
    out: Path, configs: list[str], site: Site, source: Path | None = None, *, gpu: bool = False, fire: bool = False
) -> Package:
    """Write the folder of a package.

    Parameters
    ----------
    out : folder; files of the same names in it are replaced
    configs : chains that the console offers, the default first: names of shipped ones or XML files; none: the shipped
    site : additions to the label
    source : copy of this project; None: the one that this code is from
    gpu : whether the container uses a GPU
    fire : write the folder `fire` too, for Siemens FIRE

    Raises
    ------
    ReconError
        A chain or an addition is not valid; there is no copy of the project. Nothing was written.
    """
    tree = source_tree(source)
    chains = {_name(config): read_chain(config) for config in configs or offered_chains()}
    words = {name: shipped_chains().get(name, name) for name in chains}
    check_properties(site, chains.values())
    label = make_label(site, words, gpu)
    name = package_name(label)
    own = {_name(config): Path(config).read_bytes() for config in configs if Path(config).is_file()}
    options = f"--default-chain {next(iter(chains))} --memory {label['reconstruction']['min_required_memory'] / 1024:g}"
    general = label["general"]
    image = f"openrecon_{general['vendor']}_{general['id']}".lower()
    values: dict[str, Any] = {
        "name": name,
        "image": f"{image}:V{general['version']}",
        "id": general["id"].lower(),
        "guid": str(uuid.uuid5(uuid.NAMESPACE_URL, name)),
        "source": str(tree),
        "chroot": f"FIRE_{general['vendor']}_{general['id']}_V{general['version']}.img",
        "port": label["reconstruction"]["port"],
        "options": options,
        "version": metadata.version("gadgetron-genrecon"),
    }
    if values["port"] != PORT:
        raise ReconError(f"label: reconstruction.port is {values['port']}; the container listens on {PORT}")
    with staged_folder(out.absolute()) as folder:
        (folder / LABEL_FILE).write_text(json.dumps(label, indent=2) + "\n")
        (folder / "Containerfile").write_text(recipe(tree, label, site, own, options, gpu))
        write_manual(folder / f"{name}.pdf", tree, label)
        _write_script(folder / BUILD, values)
        if fire:
            (folder / "fire").mkdir()
            for script in (CHROOT, "start-genrecon.sh"):
                _write_script(folder / "fire" / script, values)
            (folder / "fire" / "fire.ini").write_text(_rendered("fire.ini", values))
            parameters = {parameter["id"]: parameter.get("default", "") for parameter in label["parameters"]}
            text = json.dumps({"version": "1.1.0", "parameters": parameters}, indent=2)
            (folder / "fire" / "genrecon.json").write_text(text + "\n")
    return Package(out, name)


def build(package: Package, script: str = BUILD) -> None:
    """Run a package's script. Raises ReconError where it fails; its messages are on stderr."""
    path = package.folder / script
    if subprocess.run(["sh", str(path)], check=False).returncode:
        raise ReconError(f"{path} failed; see above")


def _name(config: str) -> str:
    return plain_chain_name(Path(config).name if Path(config).is_file() else config)


def _rendered(name: str, values: dict[str, Any]) -> str:
    text = (resources.files("pipelines.openrecon") / "templates" / f"{name}.j2").read_text()
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    return environment.from_string(text).render(values)


def _write_script(path: Path, values: dict[str, Any]) -> None:
    path.write_text(_rendered(path.name, values))
    path.chmod(path.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)

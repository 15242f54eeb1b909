"""Installs the shipped chains in the configuration folder of a Gadgetron server."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from gadgets.files import replace_file
from gadgets.stream import ReconError
from pipelines.chain import INSTALLED_PREFIX, shipped_chains, shipped_xml

IMPORT_TIMEOUT_S = 120.0  # for a first import of torch from a slow disk


def install_configs(home: Path, force: bool = False) -> list[Path]:
    """Write the shipped chains as `genrecon_NAME.xml` where a Gadgetron server looks for chains.

    Parameters
    ----------
    home : GADGETRON_HOME, the prefix that Gadgetron is installed under
    force : overwrite chains that were changed there

    Returns
    -------
    Files written, those that did not change among them.

    Raises
    ------
    ReconError
        There is no Gadgetron, a chain there was changed, or the folder cannot be written to. Nothing is written then,
        except that on a full disk the chains before the failed one are.
    """
    folder = home / "share" / "gadgetron" / "config"
    if not folder.is_dir():
        raise ReconError(
            f"{home}: there is no share/gadgetron/config in it; give the prefix that Gadgetron is installed under"
        )
    contents = {folder / f"{INSTALLED_PREFIX}{name}.xml": shipped_xml(name) for name in shipped_chains()}
    try:
        changed = [path.name for path, text in contents.items() if path.exists() and path.read_bytes() != text]
        if changed and not force:
            raise ReconError(
                f"{folder}: changed since they were shipped: {', '.join(changed)}; --force overwrites them"
            )
        for path, text in contents.items():
            replace_file(path, text)
    except OSError as error:
        raise ReconError(f"{folder}: cannot be written to ({error.strerror}); correct its permissions") from None
    return list(contents)


def python_problem() -> str:
    """Why the Python that Gadgetron starts cannot run our gadgets; empty if it can.

    Gadgetron takes the first `python`, else `python3`, on its PATH, whatever virtual environment is active.
    """
    program = shutil.which("python") or shutil.which("python3")
    if program is None:
        return "there is no python on the PATH; Gadgetron starts the first python or python3 there"
    try:
        found = subprocess.run(
            [program, "-c", "import gadgetron, gadgets.reconstruction, gadgets.dicom_output"],
            capture_output=True,
            text=True,
            timeout=IMPORT_TIMEOUT_S,
            cwd="/",
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{program} does not run ({type(error).__name__})"
    if found.returncode:
        reason = (found.stderr.strip().splitlines() or ["no reason given"])[-1]
        return f"{program} cannot import the gadgets ({reason}); install gadgetron-genrecon there"
    return ""

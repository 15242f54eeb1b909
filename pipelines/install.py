"""The shipped chains into the configuration folder of a Gadgetron server."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from gadgets.files import replace_file
from gadgets.stream import ReconError
from pipelines.chain import INSTALLED_PREFIX, shipped_chains, shipped_xml

ASKING_S = 120.0  # a first import of torch from a slow disk


def install_configs(home: Path, force: bool = False) -> list[Path]:
    """Write the shipped chains as `genrecon_NAME.xml` where a Gadgetron server looks for chains.

    Parameters
    ----------
    home : GADGETRON_HOME, the prefix that Gadgetron is installed under
    force : overwrite chains that were changed there

    Returns
    -------
    Files written, also those that held the same before.

    Raises
    ------
    ReconError
        There is no Gadgetron, a chain there was changed, or the folder cannot be written to; nothing is written then
        but, on a full disk, the chains before the one that failed.
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
            raise ReconError(f"{folder}: not the shipped ones: {', '.join(changed)}; --force overwrites them")
        for path, text in contents.items():
            replace_file(path, text)
    except OSError as error:
        raise ReconError(f"{folder}: cannot be written to ({error.strerror}); mend the rights") from None
    return list(contents)


def python_problem() -> str:
    """What keeps the Python that Gadgetron will start from running our gadgets; empty if nothing does.

    Gadgetron takes the first `python`, else `python3`, on its PATH and knows no virtual environments.
    """
    program = shutil.which("python") or shutil.which("python3")
    if program is None:
        return "there is no python on the PATH; Gadgetron starts the first python or python3 there"
    try:
        asked = subprocess.run(
            [program, "-c", "import gadgetron, gadgets.reconstruction, gadgets.dicom_output"],
            capture_output=True,
            text=True,
            timeout=ASKING_S,
            cwd="/",
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{program} does not run ({type(error).__name__})"
    if asked.returncode:
        reason = (asked.stderr.strip().splitlines() or ["no reason given"])[-1]
        return f"{program} cannot import the gadgets ({reason}); install gadgetron-genrecon there"
    return ""

"""Fail unless wheel and sdist hold what an installation needs, and nothing of the tests.

python check_packages.py FOLDER
"""

from __future__ import annotations

import sys
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("priors", "gadgets", "pipelines", "xml_configs")
LARGEST_MB = 45  # at most 40 of them weights


def wanted() -> set[str]:
    """Files of the packages in the project's folder: code, weights, chains, templates, pages."""
    files = (path for package in PACKAGES for path in (ROOT / package).rglob("*") if path.is_file())
    return {str(path.relative_to(ROOT)) for path in files if "__pycache__" not in path.parts}


def contents(package: Path) -> set[str]:
    """Files of a wheel, or of an sdist without its top folder."""
    if package.suffix == ".whl":
        return set(zipfile.ZipFile(package).namelist())
    with tarfile.open(package) as archive:
        return {member.name.partition("/")[2] for member in archive if member.isfile()}


def faults(package: Path) -> list[str]:
    """What is wrong with a package, one line each."""
    found = contents(package)
    tops = {name.partition("/")[0] for name in found if "/" in name and ".dist-info/" not in name}
    allowed = (
        set(PACKAGES) if package.suffix == ".whl" else {*PACKAGES, "docs", "packaging", "gadgetron_genrecon.egg-info"}
    )
    lines = [f"{name} is missing" for name in sorted(wanted() - found)]
    lines += [f"{name}/ does not belong into it" for name in sorted(tops - allowed)]
    megabytes = package.stat().st_size / 1e6
    lines += [f"it has {megabytes:.0f} MB, more than {LARGEST_MB}"] if megabytes > LARGEST_MB else []
    return [f"{package.name}: {line}" for line in lines]


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    packages = [*folder.glob("*.whl"), *folder.glob("*.tar.gz")]
    if [path.suffix for path in packages] != [".whl", ".gz"]:
        sys.exit(f"{folder}: not one wheel and one sdist")
    if lines := [line for path in packages for line in faults(path)]:
        sys.exit("\n".join(lines))

"""Make empty CUDA libraries, so that PyTorch's Linux wheels from PyPI load on a machine without them.

Those wheels are CUDA builds. They load their CUDA libraries (2.5 GB of further packages) when they are imported, and
call them only where there is a GPU. For tests on a CPU, libraries with the same names and symbols do.

    python empty_cuda_libraries.py FOLDER_OF_SITE_PACKAGES
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

NO_DRIVER = 35  # cudaErrorInsufficientDriver, which PyTorch takes as "there is no GPU"
NVIDIA = re.compile(r"lib(cu|nv|nccl)\w*\.so\.\d+")


def missing_libraries(folder: Path) -> dict[str, dict[str, set[str]]]:
    """Functions that the libraries of a folder need, by the name of the absent library and by symbol version."""
    headers = {file: _objdump("-p", file) for file in sorted(folder.glob("*.so*"))}
    wanted = {name for text in headers.values() for name in re.findall(r"NEEDED +(\S+)", text)}
    absent = {name for name in wanted if NVIDIA.fullmatch(name) and not (folder / name).exists()}
    needed: dict[str, dict[str, set[str]]] = {name: defaultdict(set) for name in sorted(absent)}
    for file, text in headers.items():
        library_of = {}
        for library, versions in re.findall(r"required from (\S+):\n((?: +0x.*\n)+)", text):
            library_of.update(dict.fromkeys(re.findall(r"(\S+)\n", versions), library))
        for version, function in re.findall(r"\*UND\*\s+[0-9a-f]+ +(?:\((\S+)\)|Base)? +(\w+)\n", _objdump("-T", file)):
            if version:
                libraries = [library_of[version]]
            else:  # functions without a version begin with the name of their library, as cuFileRead of libcufile
                libraries = [name for name in absent if function.lower().startswith(name[3:].partition(".")[0].lower())]
            for library in absent.intersection(libraries):
                needed[library][version].add(function)
    return needed


def _objdump(option: str, file: Path) -> str:
    return subprocess.run(["objdump", option, str(file)], capture_output=True, text=True, check=True).stdout


def write_library(path: Path, functions: dict[str, set[str]]) -> None:
    """Compile a library of functions, by symbol version, that do nothing."""
    names = sorted({name for group in functions.values() for name in group})
    source = "".join(f"int {name}(void) {{ return {NO_DRIVER}; }}\n" for name in names)
    command = ["gcc", "-shared", "-fPIC", "-w", "-fno-builtin", "-x", "c", "-", "-o", str(path)]
    command += [f"-Wl,-soname,{path.name}"]
    script = path.with_suffix(".map")
    if versions := {version: group for version, group in functions.items() if version}:
        script.write_text("".join(f"{name} {{ {'; '.join(sorted(group))}; }};\n" for name, group in versions.items()))
        command += [f"-Wl,--version-script={script}"]
    subprocess.run(command, input=source, text=True, check=True)
    script.unlink(missing_ok=True)


if __name__ == "__main__":
    folder = Path(sys.argv[1]) / "torch" / "lib"
    for library, functions in missing_libraries(folder).items():
        write_library(folder / library, functions)

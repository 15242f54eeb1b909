"""What is installed with the package, what only with its extras, and that nothing loads more than it needs."""

from __future__ import annotations

import configparser
import re
import subprocess
import sys
from importlib.metadata import packages_distributions

import pytest

from gadgets.stream import one_line
from priors.extras import EXTRAS, not_installed, require
from tests.paths import ROOT

CONDA_NAMES = {"torch": "pytorch", "ismrmrd": "ismrmrd-python", "gadgetron": "gadgetron-python"}
SLOW_OR_OPTIONAL = ("sigpy", "numba", "matplotlib", "skimage", "pydicom", "typer", "requests")


def _requirements(section: str, option: str) -> set[str]:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    lines = setup[section][option].split("\n")
    return {line.partition(">")[0] for line in lines if line and "[" not in line}


def _in_a_fresh_process(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_the_gadgets_of_a_reconstruction_load_nothing_slow() -> None:
    result = _in_a_fresh_process(
        "import sys, gadgets.reconstruction, gadgets.generative_recon\n"
        f"print([name for name in {SLOW_OR_OPTIONAL} if name in sys.modules])"
    )
    assert result.stdout.strip() == "[]", result.stderr


@pytest.mark.slow
def test_the_base_installation_needs_no_extra() -> None:
    optional = {name for modules in EXTRAS.values() for name in modules}
    result = _in_a_fresh_process(
        f"import sys\nsys.modules.update(dict.fromkeys({optional}))\n"
        "import gadgets.reconstruction, gadgets.dicom_output, pipelines.cli, pipelines.replay, pipelines.send"
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.slow
@pytest.mark.skipif(sys.version_info < (3, 11), reason="packages_distributions does not know all packages before 3.11")
@pytest.mark.parametrize("extra", EXTRAS)
def test_the_modules_of_an_extra_are_those_of_setup_cfg(extra: str) -> None:
    packages = {name.replace("_", "-") for module in EXTRAS[extra] for name in packages_distributions()[module]}
    assert packages == _requirements("options.extras_require", extra)


def test_the_conda_recipe_asks_for_what_setup_cfg_asks_for() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    wanted = {line.replace(">", " >", 1) for line in setup["options"]["install_requires"].split("\n") if line}
    recipe = (ROOT / "packaging" / "conda" / "meta.yaml").read_text()
    run = recipe.partition("  run:\n")[2].partition("\n\n")[0]
    asked = {line.strip().removeprefix("- ") for line in run.splitlines()} - {"python >=3.10"}
    assert {CONDA_NAMES.get(name := line.split()[0], name.lower()) + line[len(name) :] for line in wanted} == asked
    assert f'version = "{setup["metadata"]["version"]}"' in recipe


@pytest.mark.parametrize("page", ["README.md", "docs/first_image.md", "docs/install.md", "docs/Containerfile"])
def test_commands_that_install_torch_first_have_its_upper_bound(page: str) -> None:
    """A newer torch would be replaced a command later, by the CUDA build."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    bound = re.search(r"^torch>=.*(<[\d.]+)$", setup["options"]["install_requires"], re.MULTILINE)
    commands = re.findall(r"pip install [^#\n]*torch.*", (ROOT / page).read_text())
    assert bound and commands
    assert [
        command for command in commands if "torch" in command and not re.search(rf"torch[^']*{bound[1]}'", command)
    ] == []


def test_a_missing_module_is_one_line_with_the_command_that_installs_it() -> None:
    hint = "sigpy is not installed; pip install 'gadgetron-genrecon[benchmark]'"
    assert one_line(ModuleNotFoundError("No module named 'sigpy.mri'", name="sigpy.mri")) == hint
    assert not_installed("numpy") == ""
    require("numpy")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "module", "extra"),
    [
        (["serve", "--port", "0"], "prometheus_client", "serve"),
        (["serve", "--port", "0", "--pacs", "dicom://PACS@127.0.0.1:104"], "pynetdicom", "pacs"),
        (["benchmark", "missing.npy"], "psutil", "benchmark"),
        (["report", "."], "matplotlib", "benchmark"),
        (["openrecon-package", "-o", "missing"], "fpdf", "openrecon"),
        (["train", "wkgm", "--data", "missing.npy", "-o", "w.safetensors"], "skimage", "train"),
    ],
)
def test_a_command_without_its_extra_ends_in_one_line(arguments: list[str], module: str, extra: str) -> None:
    result = _in_a_fresh_process(
        f"import sys\nsys.modules[{module!r}] = None\nsys.argv[1:] = {arguments}\n"
        "from pipelines.cli import main\nmain()"
    )
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert f"{module} is not installed" in result.stderr and f"gadgetron-genrecon[{extra}]" in result.stderr

"""The public names, what they take, and that they stay fast to import."""

from __future__ import annotations

import ast
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

from tests.paths import ROOT

# Public names and the names of their arguments. A change here is one that users see: say so in CHANGELOG.md.
PUBLIC = {
    "priors": {
        "load_prior": "name",
        "espirit_maps": "kspace mask sets calibration kernel threshold crop",
        "compress_coils": "kspace coils mask",
        "reconstruct": "kspace mask method maps noise device settings",
        "posterior_samples": "kspace mask method samples maps noise device settings",
        "UnlikeTrainingWarning": None,
        "Prior": "",
        "EnergyPrior": "",
        "DensityPrior": "",
        "LatentPrior": "",
        "SigmaLevels": "values continuous",
        "expand_sigma": "sigma array",
        "ReconstructionSettings": "low_rank data_consistency sampler start steps sigma_max sigma_min samples seed "
        "keep_measured data_weight denoising window rank symmetries rule_options quality "
        "standard_steps",
        "fft2c": "image axes",
        "ifft2c": "kspace axes",
        "radial_frequency": "height width device",
    },
    "pipelines": {
        "replay": "raw config folder group settings gadgetron processes timeout dask progress noise nifti reference "
        "as_served",
        "ReplayResult": "raw folder series dicom_files nifti_files seconds first_image_seconds timings warnings noise",
        "read_images": "folder series indices",
        "Chain": "text name",
        "read_chain": "config",
        "SimulationSettings": None,
        "simulate": "settings images",
        "brain_scan": "settings",
        "BRAIN_SCAN": None,
        "scan_arrays": "scan",
        "write_raw": "path simulation progress",
        "read_truth": "raw",
        "ReconError": None,
    },
    "gadgets": {
        "Gadget": "",
        "parameter": "default description minimum maximum choices local same_image",
        "ReconError": None,
    },
}


@pytest.mark.parametrize("package", PUBLIC)
def test_public_names_and_their_arguments(package: str) -> None:
    module = importlib.import_module(package)
    assert list(getattr(module, "__all__", [])) == list(PUBLIC[package])
    for name, arguments in PUBLIC[package].items():
        found = getattr(module, name)
        assert (found.__doc__ or "").strip(), name
        if arguments is not None:
            assert " ".join(inspect.signature(found).parameters) == arguments, name


@pytest.mark.parametrize("package", ["priors", "pipelines"])
def test_type_checkers_see_the_names_that_there_are(package: str) -> None:
    tree = ast.parse((ROOT / package / "__init__.py").read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {
        alias.name: statement.module
        for statement in block.body
        if isinstance(statement, ast.ImportFrom)
        for alias in statement.names
    }
    module = importlib.import_module(package)
    assert seen == module._public


@pytest.mark.slow
def test_a_name_is_the_function_whichever_was_imported_first() -> None:
    code = (
        "import pipelines.replay, priors.reconstruct\n"
        "from pipelines.replay import read_images\n"
        "from pipelines import replay\nfrom priors import reconstruct\n"
        "import pipelines.replay as again\n"
        "assert replay.__name__ == 'replay' and again is replay and reconstruct.__module__ == 'priors.api'\n"
        "assert 'reconstruct' in dir(__import__('priors'))"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=ROOT, check=True)


def test_a_package_has_no_other_names() -> None:
    with pytest.raises(ImportError, match="telepathy"):
        exec("from pipelines import telepathy")


def test_importing_the_packages_loads_nothing_slow() -> None:
    code = "import sys, priors, gadgets, pipelines\nprint({'torch', 'numpy', 'ismrmrd', 'h5py'} & set(sys.modules))"
    printed = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert printed.strip() == "set()"


def test_examples_and_pages_import_public_names_only() -> None:
    """Scripts of the gallery and the examples import from the packages, not from their modules."""
    scripts = [*(ROOT / "docs" / "gallery").glob("*.py"), *(ROOT / "docs" / "examples").glob("*.py")]
    assert scripts
    for script in scripts:
        assert _internal(script) == [], script.name


def _internal(script: Path) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(script.read_text())):
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        found += [name for name in names if name.startswith(("priors.", "gadgets.", "pipelines."))]
    return found

"""What `pip install gadgetron-genrecon` leaves out, and the text that says how to get it."""

from __future__ import annotations

from importlib.util import find_spec

# The extras of setup.cfg, by the modules that they install.
EXTRAS = {
    "serve": ("prometheus_client",),
    "pacs": ("pynetdicom", "dicomweb_client", "requests"),
    "benchmark": ("sigpy", "skimage", "matplotlib", "psutil"),
    "train": ("skimage", "matplotlib"),
    "dask": ("distributed",),
    "openrecon": ("fpdf", "markdown_it"),
    "nifti": ("nibabel",),
    "mrd2": ("mrd",),
}


def not_installed(module: str) -> str:
    """Text for a module of an extra that is missing, with the command that installs it; empty for other modules."""
    module = module.partition(".")[0]
    extras = [extra for extra, modules in EXTRAS.items() if module in modules]
    if not extras:
        return ""
    commands = " or ".join(f"pip install 'gadgetron-genrecon[{extra}]'" for extra in extras)
    return f"{module} is not installed; {commands}"


def require(*modules: str) -> None:
    """Raise ModuleNotFoundError for the first of some modules that is missing, before work is lost for want of it."""
    for module in modules:
        if find_spec(module) is None:
            raise ModuleNotFoundError(not_installed(module), name=module)

"""The generative methods by name: one line each. A method's module says how it is loaded, used and trained."""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.util
import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from torch import Tensor

from priors.learning.cards import ModelCard
from priors.learning.checkpoints import read_checkpoint, shipped_checkpoint, weights_file
from priors.learning.recipe import Recipe
from priors.prior import Prior, check_prior
from priors.unrolled import KIND

log = logging.getLogger("genrecon")

# One line a method: its name, and where its `GenerativeMethod` is.
METHODS: dict[str, str] = {
    "wkgm": "priors.wkgm:WKGM",
    "svd_wkgm": "priors.wkgm:SVD_WKGM",
    "hkgm": "priors.hkgm:HKGM",
    "daep": "priors.dae:DAEP",
    "edaep": "priors.dae:EDAEP",
    "dmsp": "priors.dmsp:DMSP",
    "medmsp": "priors.dmsp:MEDMSP",
    "wdaep": "priors.wavelet_dae:WDAEP",
    "hggdp": "priors.hggdp:HGGDP",
    "ebm": "priors.energy:EBM",
    "vae": "priors.vae:VAE",
    "gan": "priors.gan:GAN",
    "pixelcnn": "priors.pixelcnn:PIXELCNN",
    "glow": "priors.glow:GLOW",
}
# Kinds that are trained and are no priors: their recipes.
RECONSTRUCTIONS = {KIND: "priors.learning.unrolled_training:RECIPE"}
CUSTOM = "custom"  # the method of a prior that is named by its file or module
# How the published systems differ from ours, whatever the system: the prior sees images as they are, measured samples
# stay as they were measured.
PUBLISHED_SETTINGS: dict[str, Any] = {"symmetries": False, "keep_measured": "true"}
VARIANT = ":"  # between the name of a method and that of its variant
ENTRY_POINTS = "genrecon.priors"  # group in which installed packages name theirs


@dataclass(frozen=True)
class GenerativeMethod:
    """A prior, and how it is used unless the user says otherwise.

    Parameters
    ----------
    summary : str
        What it is, and the paper, in one line.
    load : callable
        Makes the prior of a card and its weights.
    weights : str
        Name of the weights that come with the package; empty for none.
    settings : dict
        Entries of `ReconstructionSettings` that differ from the defaults.
    recipe : Recipe, optional
        How it is trained; None where it is not, or where it uses the weights of another.
    prior : Prior, optional
        The prior itself, where it needs no weights.
    self_training : bool
        Whether it can go on learning from the scan.
    takes : str
        Kind whose weights it takes besides those of its own.
    variants : mapping of GenerativeMethod
        Other forms of it by name: "published" is the published system.
    """

    summary: str
    load: Callable[[ModelCard, Mapping[str, Tensor]], Prior]
    weights: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    recipe: Recipe | None = None
    prior: Prior | None = None
    self_training: bool = False
    takes: str = ""
    variants: Mapping[str, GenerativeMethod] = field(default_factory=dict)

    def without_weights(self) -> Prior:
        """The prior of a method that needs no weights. Raises ValueError for one that does."""
        if self.prior is None:
            raise ValueError("it needs weights: give a .safetensors file")
        return self.prior


@functools.lru_cache(maxsize=1)
def _installed() -> dict[str, metadata.EntryPoint]:
    return {point.name: point for point in metadata.entry_points(group=ENTRY_POINTS) if point.name not in METHODS}


def method_names() -> tuple[str, ...]:
    """Names of all methods: those of the package, those of installed packages, and `custom`."""
    return (*METHODS, *_installed(), CUSTOM)


def is_generative(name: str) -> bool:
    """Whether a name is one of a generative method."""
    return name in METHODS or name == CUSTOM or name in _installed()


def generative_method(name: str) -> GenerativeMethod:
    """Method of a name, or of a name and a variant (NAME:VARIANT).

    Raises
    ------
    ValueError
        If there is none, or an installed package's cannot be loaded.
    """
    name, colon, variant = name.partition(VARIANT)
    if colon:
        variants = generative_method(name).variants
        if variant not in variants:
            known = f"take {', '.join(variants)}, or none" if variants else "it has none"
            raise ValueError(f"method {name}: there is no variant '{variant}'; {known}")
        return variants[variant]
    if name == CUSTOM:
        return GenerativeMethod("a prior of your own, named by the property prior", _no_weights)
    if name in METHODS:
        module, _, target = METHODS[name].partition(":")
        found = getattr(importlib.import_module(module), target)
    elif name in _installed():
        try:
            found = _installed()[name].load()
        except Exception as error:  # any error of somebody else's code
            raise ValueError(
                f"method {name}: its package cannot be loaded ({type(error).__name__}: {error})"
            ) from error
    else:
        raise ValueError(f"prior: there is no method '{name}'; take {', '.join(method_names())}")
    if isinstance(found, GenerativeMethod):
        return found
    prior = prior_of(found, name)
    return GenerativeMethod(f"{type(prior).__name__} of an installed package", _no_weights, prior=prior)


def recipe_of(kind: str) -> Recipe | None:
    """Recipe of a generative method, of a variant of one (NAME:VARIANT), or of a reconstruction that is trained whole.

    Returns
    -------
    Recipe, or None where it is not trained.

    Raises
    ------
    ValueError
        If there is no such kind.
    """
    if kind in RECONSTRUCTIONS:
        module, _, name = RECONSTRUCTIONS[kind].partition(":")
        found: Recipe = getattr(importlib.import_module(module), name)
        return found
    return generative_method(kind).recipe


def load_prior(path: Path, method: str = "") -> tuple[Prior, ModelCard]:
    """Trained prior of a file, by the kind that its card names, or as a method takes it.

    Parameters
    ----------
    path : Path
        File of the weights, `name.safetensors`, with its card `name.json` next to it.
    method : str
        Name of the method that it is for.

    Returns
    -------
    prior : Prior
        The prior, on the CPU.
    card : ModelCard
        Its card.

    Raises
    ------
    ValueError
        In one line: see `read_checkpoint`; or a kind that is not known here or not for the method, or weights of
        another architecture.
    """
    card, weights = read_checkpoint(path)
    try:
        if card.kind in RECONSTRUCTIONS:
            raise ValueError(
                f"weights of kind '{card.kind}' are a reconstruction and no prior; take method {card.kind}"
            )
        load = generative_method(card.kind).load
        if method:
            if not takes_kind(method, card.kind):
                raise ValueError(f"weights of kind '{card.kind}' are not for method {method}; take method {card.kind}")
            load = generative_method(method).load
        return load(card, weights), card
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def takes_kind(method: str, kind: str) -> bool:
    """Whether weights of a kind are for a method. Raises ValueError for an unknown method or kind."""
    entry, of_kind = generative_method(method), generative_method(kind)
    if VARIANT in method or VARIANT in kind:  # a published system has networks of its own
        return kind in (method, entry.takes)
    return kind == entry.takes or of_kind.load is entry.load


def is_code(text: str) -> bool:
    """Whether a text names code, FILE.py:NAME or MODULE:NAME, and not weights."""
    return (":" in text or text.endswith(".py")) and not text.endswith(".safetensors")


def prior_from_code(text: str) -> Prior:
    """Prior that a file or a module defines.

    Parameters
    ----------
    text : str
        FILE.py:NAME or MODULE:NAME, of a `Prior`, a class of one without arguments, or a function that makes one.

    Returns
    -------
    Prior

    Raises
    ------
    ValueError
        If there is no such file, module or name, or it is no prior.
    """
    where, _, name = text.rpartition(":")
    if not where or not name:
        raise ValueError(f"prior {text}: name the prior in the code too, FILE.py:NAME or MODULE:NAME")
    try:
        if where.endswith(".py"):
            path = Path(where).expanduser().resolve()
            name_of_path = hashlib.sha256(str(path).encode()).hexdigest()[:16]
            spec = importlib.util.spec_from_file_location(f"_prior_{path.stem}_{name_of_path}", path)
            assert spec is not None and spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            sys.modules[spec.name] = module  # where dataclasses look for their module
            spec.loader.exec_module(module)
        else:
            module = importlib.import_module(where)
    except (Exception, SystemExit) as error:  # any error of somebody else's code
        raise ValueError(f"prior {text}: {where} cannot be loaded ({type(error).__name__}: {error})") from error
    if not hasattr(module, name):
        raise ValueError(f"prior {text}: {where} has no '{name}'; name a Prior, FILE.py:NAME")
    return prior_of(getattr(module, name), text)


def prior_of(found: Any, text: str) -> Prior:
    """The prior that an object is or makes. Raises ValueError, which begins with the text, where it is none."""
    if callable(found) and not isinstance(found, Prior):
        try:
            found = found()
        except (Exception, SystemExit) as error:  # any error of somebody else's code
            raise ValueError(f"prior {text}: it failed ({type(error).__name__}: {error})") from error
    if not isinstance(found, Prior):
        raise ValueError(f"prior {text}: an object of type {type(found).__name__} is no Prior; derive from it")
    try:
        check_prior(found)
    except ValueError as error:
        raise ValueError(f"prior {text}: {error}") from None
    return found


def has_weights(method: str) -> bool:
    """Whether a method can be used without being given weights."""
    try:
        entry = generative_method(method)
    except ValueError:
        return False
    return entry.prior is not None or (bool(entry.weights) and shipped_checkpoint(entry.weights).exists())


def with_variant(method: str, variant: str) -> str:
    """Name by which `generative_method` finds a variant of a method; an empty one is the method itself."""
    return f"{method}{VARIANT}{variant}" if variant else method


def loadable_methods() -> Iterator[tuple[str, GenerativeMethod]]:
    """Names and methods, without those of installed packages that cannot be loaded."""
    for name in method_names():
        try:
            yield name, generative_method(name)
        except ValueError as error:
            log.warning("%s", error)


def code_text(text: str) -> str:
    """A name of a prior from code by which images of other code differ: the text and a hash of its file.

    Parameters
    ----------
    text : str
        FILE.py:NAME or MODULE:NAME of code that was loaded, or the name of an installed package's method.
    """
    if text in _installed():
        point = _installed()[text]
        return f"{text}:{point.dist.version}" if point.dist else text
    where = text.rpartition(":")[0]
    file = Path(where).expanduser() if where.endswith(".py") else Path(sys.modules[where].__file__ or "")
    digest = hashlib.sha256(file.read_bytes()).hexdigest()[:8] if file.is_file() else "unknown"
    return f"{Path(text).name}:{digest}"


def weights_of(method: str, given: str) -> Path:
    """File of a method's weights: the given one, a path or a name of weights of the package, or the method's own.

    Raises
    ------
    ValueError
        If neither is there to be named.
    """
    if given:
        return weights_file(given)
    name = generative_method(method).weights
    if not name:
        raise ValueError(f"method {method}: it needs a prior: weights (.safetensors), FILE.py:NAME or MODULE:NAME")
    if not (path := shipped_checkpoint(name)).exists():
        kind = generative_method(method).takes or method
        raise ValueError(
            f"method {method}: no weights come with it; learn them (genrecon train {kind}) and name them by the "
            "property prior"
        )
    return path


def _no_weights(card: ModelCard, _weights: Mapping[str, Tensor]) -> Prior:
    raise ValueError(f"weights of kind '{card.kind}' need the method of that name")

"""Methods by name, and priors from files and packages outside this one."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import pytest
import torch

from gadgets.solvers.loading import load
from priors import registry
from priors.learning.recipe import explanations, settable, with_settings
from priors.prior import Prior, SigmaLevels
from priors.registry import generative_method, method_names, prior_from_code
from tests.paths import ROOT

EXAMPLE = ROOT / "docs" / "examples" / "smoothing_prior.py"
CPU = torch.device("cpu")


def test_every_method_is_complete() -> None:
    for name in registry.METHODS:
        method = generative_method(name)
        assert method.summary
        if method.recipe is not None:
            options = method.recipe.options()
            changed = with_settings(options, {"settings.steps": "20", "scale": "0.5,1"})
            assert dict(settable(changed))["settings.augmentation.scale"] == (0.5, 1)
            assert set(dict(settable(changed))) <= set(explanations(changed))
            with pytest.raises(ValueError, match="setting 'stepz' is unknown"):
                with_settings(options, {"stepz": "1"})
            with pytest.raises(ValueError, match="setting 'steps' is 'many'"):
                with_settings(options, {"steps": "many"})
    with pytest.raises(ValueError, match="no method 'telepathy'"):
        generative_method("telepathy")


FAULTY = """
from priors.prior import Prior
class Base(Prior):
    pass  # a base without anything is no fault of the others
class Fails(Prior):
    def __init__(self):
        raise RuntimeError("no GPU")
    def denoise(self, m, sigma):
        return m
class Other:
    pass
"""


def test_code_that_is_no_prior(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(FAULTY)
    (tmp_path / "broken.py").write_text("import no_such_module")
    for text, match in (
        (f"{path}:Nothing", "has no 'Nothing'"),
        (f"{path}:Fails", "RuntimeError: no GPU"),
        (f"{path}:Other", "type Other is no Prior"),
        (f"{path}", "name the prior in the code too"),
        (":Other", "name the prior in the code too"),
        (f"{tmp_path}/broken.py:A", "cannot be loaded .*no_such_module"),
        (f"{tmp_path}/none.py:A", "cannot be loaded"),
        ("no.such.module:A", "cannot be loaded"),
    ):
        with pytest.raises(ValueError, match=match):
            prior_from_code(text)
    with pytest.raises(ValueError, match="which method custom takes and wkgm does not"):
        load("wkgm", f"{EXAMPLE}:SmoothingPrior", CPU)
    with pytest.raises(ValueError, match="it needs a prior"):
        load("custom", "", CPU)


def test_a_prior_says_something() -> None:
    with pytest.raises(ValueError, match="a prior overrides denoise, score"):
        registry.prior_of(type("Silent", (Prior,), {}), "mine.py:Silent")
    with pytest.raises(ValueError, match="ascend"):
        SigmaLevels((0.2, 0.1))
    assert SigmaLevels((0.1, 1.0)).nearest(torch.tensor([0.2, 0.5])).tolist() == pytest.approx([0.1, 1.0])


def test_an_installed_package_brings_a_method(monkeypatch: pytest.MonkeyPatch) -> None:
    point = metadata.EntryPoint("smoothing", "tests.priors.gaussian:WHITE", registry.ENTRY_POINTS)
    monkeypatch.setattr(registry, "_installed", lambda: {"smoothing": point})
    assert "smoothing" in method_names() and registry.is_generative("smoothing")
    loaded = load("smoothing", "", CPU)
    prior, card, text = loaded.prior, loaded.card, loaded.text
    assert card is None and text == "smoothing" and prior.sigma_levels.continuous


def test_a_package_that_cannot_be_loaded_harms_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    point = metadata.EntryPoint("broken", "no_such_module:X", registry.ENTRY_POINTS)
    monkeypatch.setattr(registry, "_installed", lambda: {"broken": point})
    with pytest.raises(ValueError, match="method broken: its package cannot be loaded"):
        generative_method("broken")
    assert "broken" not in [name for name, _ in registry.loadable_methods()]


def test_other_code_has_another_name(tmp_path: Path) -> None:
    texts = set()
    for change in ("", "# changed"):
        path = tmp_path / "mine.py"
        path.write_text(EXAMPLE.read_text() + change)
        texts.add(load("custom", f"{path}:SmoothingPrior", CPU).text)
    assert len(texts) == 2 and all(text.startswith("mine.py:SmoothingPrior:") for text in texts)

"""docs/family_tree.md against the code: every method, its rule in both forms, its domain."""

from __future__ import annotations

import re

from priors.registry import METHODS, generative_method
from priors.unrolled import KIND
from tests.paths import ROOT

PAGE = (ROOT / "docs" / "family_tree.md").read_text()


def rows() -> dict[str, list[str]]:
    table = PAGE.partition("## Each system")[2].partition("## How they compare")[0]
    cells = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line.startswith("| `")
    ]
    return {row[0].strip("`"): row[1:] for row in cells}


def test_every_method_is_in_tree_and_table() -> None:
    tree = PAGE.partition("```text")[2].partition("```")[0]
    for name in (*METHODS, KIND):
        assert re.search(rf"\b{name}\b", tree), name
    assert set(rows()) == set(METHODS)


def test_rules_are_those_of_the_code() -> None:
    for name, (_, published, _, ours, _) in rows().items():
        method = generative_method(name)
        assert ours == method.settings.get("sampler", "few_step"), name
        if "published" in method.variants:
            settings = method.variants["published"].settings
            assert published.partition(",")[0] == settings["sampler"], name
            assert ("Jacobian" in published) == bool(settings.get("rule_options", {}).get("jacobian")), name
        else:
            assert published == "predictor_corrector", name


def test_the_commands_exist() -> None:
    for module in re.findall(r"python -m benchmarks\.(\w+)", PAGE):
        assert (ROOT / "benchmarks" / f"{module}.py").exists(), module

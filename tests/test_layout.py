"""How modules import each other; the floors are contracts of import-linter in setup.cfg."""

from __future__ import annotations

from graphlib import TopologicalSorter

import pytest


def test_no_module_imports_one_that_imports_it() -> None:
    grimp = pytest.importorskip("grimp", reason="import-linter is not installed (it needs Python 3.11)")
    graph = grimp.build_graph("priors", "gadgets", "pipelines", "benchmarks", cache_dir=None)
    imports = {module: graph.find_modules_directly_imported_by(module) - {module} for module in graph.modules}
    assert imports["gadgets.reconstruction"]
    TopologicalSorter(imports).prepare()  # raises CycleError, which names the modules of a cycle

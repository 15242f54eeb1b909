"""Every public function, class and method says what it is; a method that overrides another may leave that to it."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path

from tests.paths import ROOT

PACKAGES = ("priors", "gadgets", "pipelines")
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def undocumented(modules: Iterable[Path]) -> Iterator[str]:
    """Public definitions of the modules' top level, and public methods of classes, that have no docstring."""
    trees = {path: ast.parse(path.read_text()) for path in modules}
    classes = {node.name: node for tree in trees.values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}

    def inherits(name: str, bases: list[ast.expr]) -> bool:
        """Whether a base class of these packages documents a method of that name."""
        for base in bases:
            kind = classes.get(ast.unparse(base).partition("[")[0].rpartition(".")[2])
            if kind is None:
                continue
            own = [node for node in kind.body if isinstance(node, FUNCTIONS) and node.name == name]
            if any(ast.get_docstring(node) for node in own) or inherits(name, kind.bases):
                return True
        return False

    for path, tree in trees.items():
        if ast.get_docstring(tree) is None:
            yield f"{path}: the module"
        for node in tree.body:
            if not isinstance(node, (*FUNCTIONS, ast.ClassDef)) or node.name.startswith("_"):
                continue
            if ast.get_docstring(node) is None:
                yield f"{path}:{node.lineno}: {node.name}"
            for method in node.body if isinstance(node, ast.ClassDef) else ():
                if not isinstance(method, FUNCTIONS) or method.name.startswith("_"):
                    continue
                if ast.get_docstring(method) is None and not inherits(method.name, node.bases):
                    yield f"{path}:{method.lineno}: {node.name}.{method.name}"


def test_every_public_definition_has_a_docstring() -> None:
    modules = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    missing = list(undocumented(modules))
    assert len(modules) > 250 and not missing, "\n".join(missing)


def test_a_missing_docstring_is_found(tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    module.write_text(
        '"""A module."""\n'
        'class Base:\n    """A base."""\n    def told(self):\n        """Do it."""\n    def untold(self): ...\n'
        'class Kind(Base):\n    """A kind."""\n    def told(self): ...\n    def untold(self): ...\n'
        "    def _own(self): ...\n"
        "def function(): ...\n"
    )
    names = [text.rpartition(" ")[2] for text in undocumented([module])]
    assert names == ["Base.untold", "Kind.untold", "function"]

"""Public names of a package that are loaded when they are asked for, so that importing the package stays fast."""

import importlib
import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Any


class _Package(ModuleType):
    """A package with public names from its modules (as PEP 562, for names that a module has as well).

    Where a public name is that of a module too (`pipelines.replay`), the package's attribute is the function, whichever
    was imported first; `from pipelines.replay import ...` still finds the module.
    """

    _public: Mapping[str, str]

    def __getattr__(self, name: str) -> Any:
        if name not in self._public:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(self._public[name]), name)
        super().__setattr__(name, value)
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in self._public and isinstance(value, ModuleType)):
            super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self._public})


def export(package: str, public: Mapping[str, str]) -> list[str]:
    """Give a package public names.

    Parameters
    ----------
    package : str
        Its `__name__`.
    public : mapping of str
        Module that has each name.

    Returns
    -------
    list of str
        The names, for `__all__`.
    """
    module = sys.modules[package]
    module.__dict__["_public"] = dict(public)
    module.__class__ = _Package
    return list(public)

"""Load the losses together with Keras, never before it.

Keras 3 finds a class in a saved model only where its module was imported. Importing
`losses` should be enough for that, in any order with `import keras`, and should not
cost the seconds that Keras takes where only the names are wanted.
"""

import importlib
import importlib.abc
import importlib.util
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

__all__ = ["with_keras"]


def with_keras(package: str, modules: Sequence[str]) -> None:
    """Import `modules` of `package` now if Keras is loaded, else right after it."""
    names = [f"{package}.{module}" for module in modules]
    if _is_loaded("keras"):
        _import(names)
    else:
        sys.meta_path.insert(0, _AfterKeras(names))


def _is_loaded(name: str) -> bool:
    module = sys.modules.get(name)
    spec = getattr(module, "__spec__", None)
    return module is not None and not getattr(spec, "_initializing", False)


def _import(names: Sequence[str]) -> None:
    for name in names:
        importlib.import_module(name)


class _AfterKeras(importlib.abc.MetaPathFinder):
    """Steps aside at the first `import keras`, and lets `names` follow it."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names
        self._looking = False

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        if fullname != "keras" or self._looking:
            return None
        self._looking = True
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            self._looking = False
        if spec is not None and spec.loader is not None:
            self._follow(spec.loader)
        return spec

    def _follow(self, loader: importlib.abc.Loader) -> None:
        load = loader.exec_module

        def load_then_import(module: ModuleType) -> None:
            # Only now: many look for Keras without loading it.
            if self in sys.meta_path:
                sys.meta_path.remove(self)
            load(module)
            _import(self.names)

        loader.exec_module = load_then_import  # type: ignore[method-assign]

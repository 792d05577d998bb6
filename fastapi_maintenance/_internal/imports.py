"""Import a part of a library without the rest of it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec, module_from_spec
from threading import RLock
from types import ModuleType
from typing import Any, ClassVar, Final

_LOCK_TIMEOUT: Final = 10.0  # seconds; each of two threads may wait for an import of the other


def import_part(module: str) -> None:
    """Import a module of a library without running the `__init__` of the packages around it.

    The next import of one of these packages, or of another module in them, runs it: for everybody
    else the library is whole. A library that is imported already stays as it is. One whose parts
    need the rest is imported as usual, when it is needed.
    """
    parts = module.split(".")
    names = [".".join(parts[:length]) for length in range(1, len(parts))]
    if names[0] in sys.modules or module in sys.modules:
        return
    # A test runner may have dropped these modules, with this one, from `sys.modules`.
    sys.meta_path[:] = [one for one in sys.meta_path if names[0] not in getattr(one, "unrun", ())]
    packages: dict[str, ModuleType] = {}
    with _Unrun.lock:
        try:
            for name in names:
                if (spec := find_spec(name)) is None:
                    raise ModuleNotFoundError(name=name)
                packages[name] = package = module_from_spec(spec)
                package.__class__ = _Unrun
                sys.modules[name] = package
            import_module(module)
        except ImportError:
            for name in [*sys.modules]:
                if name.partition(".")[0] == names[0]:
                    del sys.modules[name]
            return
        for name in packages:
            del sys.modules[name]
        sys.meta_path.insert(0, _Rest(packages))


class _Unrun(ModuleType):
    """A package without its `__init__`, as the modules in it may have imported it.

    Another thread may have imported it too, and waits until the part is there.
    """

    lock: ClassVar = RLock()

    def __getattr__(self, name: str) -> Any:
        if self.lock.acquire(timeout=_LOCK_TIMEOUT):
            self.lock.release()
        whole = import_module(self.__name__)
        return ModuleType.__getattribute__(self, name) if whole is self else getattr(whole, name)


class _Rest(MetaPathFinder, Loader):
    """Lets an import run the `__init__` of a package whose part is imported already."""

    def __init__(self, packages: dict[str, ModuleType]) -> None:
        self.unrun = packages

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        package = self.unrun.get(name)
        if package is None or package.__spec__ is None:
            return None
        given = package.__spec__
        spec = ModuleSpec(name, self, origin=given.origin, is_package=True)
        spec.submodule_search_locations = given.submodule_search_locations
        spec.loader_state = given
        return spec

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return self.unrun[spec.name]

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__ is not None
        spec: ModuleSpec = module.__spec__.loader_state
        assert spec.loader is not None
        del self.unrun[spec.name]
        module.__class__ = ModuleType
        spec.loader.exec_module(module)
        module.__spec__, module.__loader__ = spec, spec.loader

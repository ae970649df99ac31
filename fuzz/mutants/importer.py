"""A mutated module is compiled from its mutated text; no file is changed, and no compiled file is written or read.

The loader is no `SourceFileLoader` on purpose: an instrumenting importer replaces such a loader by one of its own, which would
read the file. Any other loader it wraps.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import linecache
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import CodeType, ModuleType

    from fuzz.mutants.catalogue import Mutant


class _Loader(importlib.abc.InspectLoader):
    """Compiles one module from a text."""

    def __init__(self, path: str, text: str) -> None:
        self.path = path
        self.text = text

    def get_filename(self, _fullname: str) -> str:
        """Return the path that tracebacks name."""
        return self.path

    def get_source(self, _fullname: str) -> str:
        """Return the mutated text."""
        return self.text

    def get_code(self, _fullname: str) -> CodeType:
        """Compile the mutated text."""
        return self.source_to_code(self.text, self.path)


class Finder(importlib.abc.MetaPathFinder):
    """Finds one module: the mutated one.

    Args:
        mutant: what is put back.

    Raises:
        CatalogueError: it is stale.
    """

    def __init__(self, mutant: Mutant) -> None:
        self.mutant = mutant
        self.fullname = f"impl.{mutant.module}"
        self._text = mutant.mutated()

    def find_spec(
        self, fullname: str, _path: Sequence[str] | None = None, _target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Return the spec of the mutated module, None for any other."""
        if fullname != self.fullname:
            return None
        path = str(self.mutant.path)
        # Tracebacks and `inspect` show the text that runs. Entries without a time are not compared with the file.
        linecache.cache[path] = (len(self._text), None, self._text.splitlines(keepends=True), path)
        spec = importlib.util.spec_from_loader(fullname, _Loader(path, self._text), origin=path)
        if spec is not None:
            spec.has_location = True
        return spec


def install(mutant: Mutant) -> None:
    """Let this process import the mutant from now on.

    Raises:
        CatalogueError: it is stale.
        ImportError: the module is imported already, or another mutant is in place.
    """
    for finder in sys.meta_path:
        if isinstance(finder, Finder):
            if finder.mutant != mutant:
                raise ImportError(f"mutant {finder.mutant.name} is in place already, {mutant.name} comes too late")
            return
    finder = Finder(mutant)
    if finder.fullname in sys.modules:
        raise ImportError(f"{finder.fullname} is imported already, mutant {mutant.name} comes too late")
    sys.meta_path.insert(0, finder)

"""A mutant is one text in one module of `impl` and what it becomes; it is stale as soon as that text does not occur exactly once.

The catalogue is `fuzz/mutants.toml`. A file with a single entry of the same form serves as well, so that anyone can try a defect of
their own.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent.parent
"""The folder in which the packages lie side by side."""
CATALOGUE: Final = ROOT / "fuzz" / "mutants.toml"
CLASSES: Final = ("memory-safety", "leak", "wrong-value", "abort", "hang")
_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_FIELDS: Final = ("id", "module", "origin", "class", "breaks", "old", "new")


class CatalogueError(Exception):
    """An entry cannot be used: malformed, twice, or stale. The message is one line."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """One defect.

    Args:
        name: its id.
        module: module of `impl`, without the package.
        origin: an advisory, an issue number, a defect of the seed, or what it is derived from.
        severity: one of `CLASSES`: what a user would meet.
        breaks: what goes wrong, in a sentence.
        old: text that occurs exactly once in the module.
        new: what it becomes.
    """

    name: str
    module: str
    origin: str
    severity: str
    breaks: str
    old: str
    new: str

    @property
    def path(self) -> Path:
        """The module's file."""
        return ROOT / "impl" / f"{self.module}.py"

    def mended(self) -> str:
        """Return the module's text as it is.

        Raises:
            CatalogueError: there is no such module.
        """
        try:
            return self.path.read_text(encoding="utf-8")
        except OSError as error:
            raise CatalogueError(f"mutant {self.name}: impl.{self.module} cannot be read: {error.strerror or error}") from error

    def mutated(self) -> str:
        """Return the module's text with the defect.

        Raises:
            CatalogueError: the entry is stale, or what it makes is no Python.
        """
        text = self.mended()
        occurrences = text.count(self.old)
        if occurrences != 1:
            raise CatalogueError(f"mutant {self.name} is stale: its old text occurs {occurrences} times in impl/{self.module}.py, not once")
        result = text.replace(self.old, self.new)
        try:
            compile(result, str(self.path), "exec", dont_inherit=True)
        except SyntaxError as error:
            raise CatalogueError(f"mutant {self.name}: impl/{self.module}.py would be no Python: {error}") from error
        return result

    def diff(self) -> str:
        """Return the change as a unified diff."""
        lines = (self.mended().splitlines(keepends=True), self.mutated().splitlines(keepends=True))
        name = f"impl/{self.module}.py"
        return "".join(difflib.unified_diff(*lines, fromfile=name, tofile=f"{name} ({self.name})", n=2))


def load(path: Path = CATALOGUE) -> dict[str, Mutant]:
    """Read a catalogue; return its mutants by name, in order.

    Raises:
        CatalogueError: it cannot be read, or an entry is malformed, there twice, or stale.
    """
    try:
        entries = tomllib.loads(path.read_text(encoding="utf-8")).get("mutant")
    except OSError as error:
        raise CatalogueError(f"{path}: {error.strerror or error}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise CatalogueError(f"{path}: {error}") from error
    if not isinstance(entries, list) or not entries:
        raise CatalogueError(f"{path}: there is no [[mutant]]")
    mutants: dict[str, Mutant] = {}
    for number, entry in enumerate(entries, start=1):
        mutant = _read(path, number, entry)
        if mutant.name in mutants:
            raise CatalogueError(f"{path}: {mutant.name} is there twice")
        mutant.mutated()
        mutants[mutant.name] = mutant
    return mutants


def _read(path: Path, number: int, entry: object) -> Mutant:
    if not isinstance(entry, dict) or sorted(entry) != sorted(_FIELDS) or not all(isinstance(entry[name], str) for name in _FIELDS):
        raise CatalogueError(f"{path}: entry {number} has not exactly these texts: {', '.join(_FIELDS)}")
    mutant = Mutant(entry["id"], entry["module"], entry["origin"], entry["class"], entry["breaks"], entry["old"], entry["new"])
    if not _ID.fullmatch(mutant.name) or not mutant.module.isidentifier():
        raise CatalogueError(f"{path}: entry {number}: {mutant.name!r} or {mutant.module!r} is no name")
    if mutant.severity not in CLASSES:
        raise CatalogueError(f"{path}: {mutant.name}: class {mutant.severity!r} is none of {', '.join(CLASSES)}")
    if not mutant.old.strip() or mutant.old == mutant.new:
        raise CatalogueError(f"{path}: {mutant.name} changes nothing")
    return mutant


def chosen(text: str) -> Mutant:
    """Return the mutant that a word names: an id of the catalogue, or the path of a TOML file with one entry.

    Raises:
        CatalogueError: there is none.
    """
    if text.endswith(".toml"):
        mutants = load(Path(text))
        if len(mutants) != 1:
            raise CatalogueError(f"{text}: has {len(mutants)} mutants, and one is wanted")
        return next(iter(mutants.values()))
    mutants = load()
    if text not in mutants:
        raise CatalogueError(f"there is no mutant {text!r} (drc mutants --list shows all)")
    return mutants[text]

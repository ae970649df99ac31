"""Results are appended to a file one whole line at a time, so that a run that is killed has lost at most what was under way.

A line says what it is the result of: the defect's text, the code under test, the engine, its time and seed. One that is about
something else, of an earlier version for instance, is not taken for a result of this run.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from fuzz.mutants.catalogue import ROOT, CatalogueError
from fuzz.mutants.cell import Outcome

if TYPE_CHECKING:
    from pathlib import Path

    from fuzz.mutants.catalogue import Mutant

_PACKAGES: Final = ("model", "impl", "fuzz", "proofs")
_DIGITS: Final = 16


def sources_digest(*more: str) -> str:
    """Return a digest of all code that a result depends on. The catalogue is not in it: each mutant has its own.

    Args:
        more: folders besides those of the code, all files of which a result depends on.
    """
    digest = hashlib.sha256()
    for package in (*_PACKAGES, *more):
        for path in sorted((ROOT / package).rglob("*.*" if package in more else "*.py")):
            if ROOT / "fuzz" / "mutants" not in path.parents and path.is_file() and path.suffix != ".pyc":
                digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:_DIGITS]


def key_of(mutant: Mutant | None, engine: str, seconds: float, seed: int, sources: str) -> str:
    """Return what a result is the result of.

    Args:
        mutant: None for the control, the code as it is.
        engine: its name.
        seconds: its time.
        seed: its seed.
        sources: see `sources_digest`.
    """
    change = "" if mutant is None else f"{mutant.module}\0{mutant.old}\0{mutant.new}"
    digest = hashlib.sha256(change.encode()).hexdigest()[:_DIGITS]
    return f"{'none' if mutant is None else mutant.name} {engine} {seconds:g} {seed} {digest} {sources}"


class Log:
    """A file of results.

    Args:
        path: the file; made if it is not there. None keeps results in memory alone.

    Raises:
        CatalogueError: the file is something else.
        OSError: it cannot be read or written.
    """

    def __init__(self, path: Path | None) -> None:
        self.results: dict[str, Outcome] = {}
        self._descriptor = -1
        if path is None:
            return
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        data = path.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        for number, line in enumerate(whole.splitlines(), start=1):
            self._take(path, number, line)
        if len(whole) != len(data):
            # The last line was cut off by whatever ended the run that wrote it.
            os.ftruncate(self._descriptor, len(whole))

    def _take(self, path: Path, number: int, line: bytes) -> None:
        try:
            said: dict[str, Any] = json.loads(line)
            key = said.pop("key")
            self.results[key] = Outcome(**said)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise CatalogueError(f"{path}: line {number} is no result of drc mutants") from error

    def add(self, key: str, outcome: Outcome) -> None:
        """Keep a result. Complexity: one write, and one wait for the disk."""
        self.results[key] = outcome
        if self._descriptor >= 0:
            os.write(self._descriptor, (json.dumps({"key": key} | asdict(outcome)) + "\n").encode())
            os.fsync(self._descriptor)

    def close(self) -> None:
        """Close the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

"""The kill matrix: each engine against each mutant, every cell a process with limits, and a control without any mutant."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fuzz.mutants.catalogue import ROOT
from fuzz.mutants.cell import Orders, Outcome
from fuzz.mutants.hook import QUIET, VARIABLE
from fuzz.mutants.log import key_of, sources_digest
from fuzz.mutants.names import COUNTED, ENGINES, REPLAYING
from fuzz.mutants.processes import run
from fuzz.workers import HarnessFailure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from fuzz.mutants.catalogue import Mutant
    from fuzz.mutants.log import Log

ENGINES_WANTED: Final = 2
"""A mutant that fewer notice is a survivor."""
_SLACK_SECONDS: Final = 300.0
"""Beyond an engine's own time: to start, to minimise, and for a machine that is shared."""
_TIMES_OWN: Final = {"prove": 20.0}
"""How often an engine may use its time."""
_LAST_WORDS: Final = 300


@dataclass(slots=True)
class Matrix:
    """What came of a run.

    Args:
        mutants: rows.
        engines: columns.
        cells: results by mutant and engine, those that there are; the control's have an empty name.
        interrupted: the user ended it.
    """

    mutants: list[Mutant]
    engines: list[str]
    cells: dict[tuple[str, str], Outcome] = field(default_factory=dict)
    interrupted: bool = False

    def available(self, engine: str) -> bool:
        """Whether an engine did anything at all."""
        return any(cell.status == "ran" for (_, name), cell in self.cells.items() if name == engine)

    def kills(self, mutant: Mutant) -> list[str]:
        """Return the engines of this project that noticed a mutant."""
        return [engine for engine in self.engines if engine in COUNTED and self.cell(mutant, engine).killed]

    def cell(self, mutant: Mutant, engine: str) -> Outcome:
        """Return a result; one that there is not yet is that of an engine which is not available."""
        return self.cells.get((mutant.name, engine), Outcome(status="unavailable"))

    def wanted(self) -> int:
        """Return how many engines have to notice each mutant."""
        return min(ENGINES_WANTED, sum(self.available(engine) for engine in self.engines if engine in COUNTED))

    def survivors(self) -> list[Mutant]:
        """Return the mutants that too few engines noticed."""
        return [mutant for mutant in self.mutants if len(self.kills(mutant)) < self.wanted()]


@dataclass(slots=True)
class Runner:
    """Fills a matrix.

    Args:
        seconds: for each engine.
        seed: of each engine.
        log: where results are kept, and found.
        tell: called with each new cell: mutant or None, engine, result.
    """

    seconds: float
    seed: int
    log: Log
    tell: Callable[[Mutant | None, str, Outcome], None]
    _stop: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def fill(self, mutants: Sequence[Mutant], engines: Sequence[str], jobs: int, *, control: bool) -> Matrix:
        """Run what is not in the log yet.

        Args:
            mutants: rows.
            engines: columns.
            jobs: cells at once.
            control: run each engine on the code as it is, too.

        Raises:
            HarnessFailure: a cell failed in a way that says nothing about its mutant, or an engine found something in the control.
        """
        matrix = Matrix(list(mutants), list(engines))
        rows: list[Mutant | None] = [None, *mutants] if control else list(mutants)
        sources = sources_digest()
        with tempfile.TemporaryDirectory(prefix="drc-mutants-") as folder:
            place = Path(folder)
            todo: list[tuple[Mutant | None, str, str]] = []
            for mutant in rows:
                for engine in engines:
                    key = key_of(mutant, engine, self.seconds, self.seed, sources)
                    known = self.log.results.get(key)
                    if known is None:
                        todo.append((mutant, engine, key))
                    else:
                        self._put(matrix, mutant, engine, known)
            try:
                if any(engine in REPLAYING for _, engine, _ in todo):
                    self._cell(place, None, "record")
                self._work(matrix, place, todo, jobs)
            except KeyboardInterrupt:
                matrix.interrupted = True
        return matrix

    def _work(self, matrix: Matrix, place: Path, todo: Iterable[tuple[Mutant | None, str, str]], jobs: int) -> None:
        """Do cells, some at once; the first failure, or an interruption, ends all."""

        def do(item: tuple[Mutant | None, str, str]) -> None:
            mutant, engine, key = item
            if self._stop.is_set():
                return
            outcome = self._cell(place, mutant, engine)
            if outcome is None:
                return
            with self._lock:
                self._put(matrix, mutant, engine, outcome)
                if outcome.status != "failed":
                    self.log.add(key, outcome)
                self.tell(mutant, engine, outcome)

        with ThreadPoolExecutor(jobs) as pool:
            futures = [pool.submit(do, item) for item in todo]
            try:
                for future in futures:
                    future.result()
            finally:
                self._stop.set()
                for future in futures:
                    future.cancel()

    def _put(self, matrix: Matrix, mutant: Mutant | None, engine: str, outcome: Outcome) -> None:
        if mutant is None and outcome.killed:
            raise HarnessFailure(f"the control: {engine} found {outcome.verdict} in the code as it is: {outcome.text}".replace("\n", " "))
        matrix.cells["" if mutant is None else mutant.name, engine] = outcome

    def _cell(self, place: Path, mutant: Mutant | None, engine: str) -> Outcome | None:
        """Run one cell; None if it was stopped."""
        name = f"{'none' if mutant is None else mutant.name}-{engine}"
        result, log = place / f"{name}.json", place / f"{name}.log"
        orders = Orders(engine, self.seconds, self.seed, str(result), str(place / "pool"))
        command = [sys.executable, "-m", "fuzz.mutants.cell", json.dumps(asdict(orders))]
        limit = self.seconds * _TIMES_OWN.get(engine, 1.0) + _SLACK_SECONDS
        code = run(command, _environment(mutant), log, limit, self._stop.is_set, place)
        if self._stop.is_set():
            return None
        if result.exists():
            return Outcome(**json.loads(result.read_text(encoding="utf-8")))
        if mutant is not None and code is None:
            return Outcome(killed=True, verdict="Hang", text=f"no end after {limit:g} seconds", seconds=limit)
        if mutant is not None and code is not None and code < 0:
            return Outcome(killed=True, verdict="Died", text=f"the process died of signal {-code}")
        said = log.read_text(encoding="utf-8", errors="replace").strip()[-_LAST_WORDS:].replace("\n", " ")
        if mutant is None:
            raise HarnessFailure(f"{engine} on the code as it is ended with code {code}: {said}")
        return Outcome(status="failed", text=f"ended with code {code}: {said}")


def _environment(mutant: Mutant | None) -> dict[str, str]:
    path = os.pathsep.join(word for word in (str(ROOT), os.environ.get("PYTHONPATH")) if word)
    environment = os.environ | {"PYTHONPATH": path, "PYTHONHASHSEED": "0"}
    environment.pop(VARIABLE, None)
    if mutant is not None:
        environment |= {VARIABLE: mutant.name, QUIET: "1"}
    return environment


def chosen_engines(words: str) -> list[str]:
    """Return the engines that a word names: names with commas between them, or `all`; in the order of the matrix.

    Raises:
        KeyError: names the one that there is not.
    """
    if words == "all":
        return list(ENGINES)
    wanted = words.split(",")
    for word in wanted:
        if word not in ENGINES:
            raise KeyError(word)
    return [engine for engine in ENGINES if engine in wanted]

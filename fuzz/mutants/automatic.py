"""`drc mutants --auto` tries every small change of a module; what nobody notices is a gap, or makes no difference and is listed as that.

A change that makes no difference has an entry in `fuzz/equivalents.toml` with the reason. An entry that fits no change, or one that
something notices after all, is stale and fails the run.
"""

from __future__ import annotations

import json
import sys
import threading
import tomllib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import typer

from fuzz.live import Lines
from fuzz.mutants.catalogue import ROOT, CatalogueError, Mutant
from fuzz.mutants.cell import Outcome
from fuzz.mutants.log import Log, key_of, sources_digest
from fuzz.mutants.operators import Change, changes
from fuzz.mutants.serving import Server
from fuzz.workers import HarnessFailure

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MODULES: Final = (
    *("activation", "activations_table", "arena", "collector", "externref", "hash_set", "instance", "layout", "stack", "stack_maps"),
    *("store", "transfers"),
)
_SCATTER: Final = 0x9E37_79B1
"""Its multiples, taken modulo 2^32, lie evenly."""
EQUIVALENTS: Final = ROOT / "fuzz" / "equivalents.toml"


@dataclass(slots=True)
class Gaps:
    """What came of the changes of a module.

    Args:
        module: of `impl`.
        text: as it is.
        tried: each change with its result, in the order of the lines.
        equivalents: changes that make no difference, by what they are recognised by, with the reason.
        interrupted: the user ended it.
    """

    module: str
    text: str
    tried: list[tuple[Change, Outcome]] = field(default_factory=list)
    equivalents: dict[str, str] = field(default_factory=dict)
    interrupted: bool = False

    def survivors(self) -> list[Change]:
        """Return the changes that nobody noticed, those that are known to make no difference left out."""
        return [change for change, outcome in self.tried if not outcome.killed and change.brief(self.text) not in self.equivalents]

    def harmless(self) -> list[Change]:
        """Return the changes that nobody noticed and that are known to make no difference."""
        return [change for change, outcome in self.tried if not outcome.killed and change.brief(self.text) in self.equivalents]

    def stale(self) -> list[str]:
        """Return entries that fit no change that nobody noticed. Only of use when everything was tried."""
        alive = {change.brief(self.text) for change, outcome in self.tried if not outcome.killed}
        return sorted(set(self.equivalents) - alive)


def equivalents(module: str) -> dict[str, str]:
    """Return the listed changes of a module with their reasons.

    Raises:
        CatalogueError: the list is malformed.
    """
    try:
        entries = tomllib.loads(EQUIVALENTS.read_text(encoding="utf-8")).get("equivalent", [])
        return {entry["change"]: entry["reason"] for entry in entries if entry["module"] == module}
    except (OSError, tomllib.TOMLDecodeError, KeyError, TypeError) as error:
        raise CatalogueError(f"{EQUIVALENTS}: {error}") from error


def try_all(gaps: Gaps, log: Log, seconds: float, jobs: int, say: Lines) -> None:
    """Try every change of a module that is not in the log yet: the quick half of what might notice on all, then the rest on what is left.

    Raises:
        HarnessFailure: the code as it is does not pass, or a server died.
    """
    todo = changes(gaps.text)
    # The control comes first: what notices the code as it is says nothing about a change of it.
    first = Change(0, "", "", "", gaps.text)
    # Whoever adds a test for a survivor wants to see that one tried again.
    sources = sources_digest("tests/impl", "tests/traces")
    servers: list[Server] = []
    mine = threading.local()
    lock = threading.Lock()
    results: dict[int, Outcome] = {}

    def do(number: int, change: Change, *, quick: bool) -> None:
        mutant = Mutant(gaps.module, gaps.module, "auto", "", "", gaps.text, change.text)
        whole, half = (key_of(mutant, engine, seconds, 0, sources) for engine in ("auto", "auto-quick"))
        outcome = log.results.get(whole) or (log.results.get(half) if quick else None)
        if outcome is None:
            if not hasattr(mine, "server"):
                mine.server = Server()
                servers.append(mine.server)
            outcome = mine.server.ask({"module": gaps.module, "text": change.text, "seconds": seconds, "quick": quick})
            with lock:
                # Only what is noticed, or has been through both halves, is a result.
                log.add(half if quick and not outcome.killed else whole, outcome)
        if outcome.killed or not quick or whole in log.results:
            results[number] = outcome
        if not quick and number and not outcome.killed:
            say.say(f"impl.{gaps.module}: nobody notices line {change.line}, {change.brief(gaps.text)}")
        if say.due():
            say.say(f"impl.{gaps.module}: {len(results)} of {len(todo) + 1}")

    pool = ThreadPoolExecutor(jobs)
    try:
        for quick in (True, False):
            pool.submit(do, 0, first, quick=quick).result()
            if 0 in results and results[0].killed:
                raise HarnessFailure(f"{results[0].verdict} notices impl.{gaps.module} as it is: {results[0].text}")
        # Scattered, so that a run that is cut short has tried a fair sample.
        scattered = sorted(enumerate(todo, start=1), key=lambda pair: pair[0] * _SCATTER & 0xFFFF_FFFF)
        for quick in (True, False):
            left = [(number, change) for number, change in scattered if number not in results]
            for future in [pool.submit(do, number, change, quick=quick) for number, change in left]:
                future.result()
    except KeyboardInterrupt:
        gaps.interrupted = True
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for server in servers:
            server.close()
        pool.shutdown()
    gaps.tried = [(change, results[number]) for number, change in enumerate(todo, start=1) if number in results]


def mutate(module: str, *, seconds: float, jobs: int, resume: Path | None, json_: bool) -> int:
    """Do `drc mutants --auto`; return the exit code.

    Args:
        module: of `impl`.
        seconds: of the campaign against each change.
        jobs: processes.
        resume: log.
        json_: print JSON.
    """
    try:
        known = equivalents(module)
        log = Log(resume)
    except CatalogueError as error:
        raise typer.BadParameter(str(error)) from error
    gaps = Gaps(module, (ROOT / "impl" / f"{module}.py").read_text(encoding="utf-8"), equivalents=known)
    try:
        with Lines(sys.stderr, lambda: f"impl.{module}") as say:
            try_all(gaps, log, seconds, jobs, say)
    finally:
        log.close()
    typer.echo(json.dumps(_as_json(gaps), indent=2) if json_ else "\n".join(_lines(gaps)))
    sys.stdout.flush()
    if gaps.interrupted:
        return 130
    if gaps.stale():
        raise HarnessFailure(f"fuzz/equivalents.toml is stale: {gaps.stale()[0]}")
    return 1 if gaps.survivors() else 0


def _lines(gaps: Gaps) -> Iterator[str]:
    """Return survivors with their diffs, then those that make no difference, then the totals."""
    for change in gaps.survivors():
        yield change.diff(gaps.text, f"impl/{gaps.module}.py").rstrip()
        yield ""
    for change in gaps.harmless():
        brief = change.brief(gaps.text)
        yield f"no difference: line {change.line}, {brief}: {gaps.equivalents[brief]}"
    stages = Counter(outcome.verdict for _, outcome in gaps.tried if outcome.killed)
    noticed = sum(stages.values())
    share = 100 * noticed / len(gaps.tried) if gaps.tried else 0.0
    by = ", ".join(f"{count} {stage}" for stage, count in stages.most_common())
    yield (
        f"impl.{gaps.module}: {len(gaps.tried)} changes, {noticed} noticed ({share:.1f} %: {by}), "
        f"{len(gaps.harmless())} make no difference, {len(gaps.survivors())} survive"
    )


def _as_json(gaps: Gaps) -> dict[str, object]:
    return {
        "module": f"impl.{gaps.module}",
        "interrupted": gaps.interrupted,
        "changes": [
            {
                "line": change.line,
                "function": change.function,
                "change": change.brief(gaps.text),
                "noticed": outcome.verdict or None,
                "says": outcome.text,
                "no_difference": gaps.equivalents.get(change.brief(gaps.text)),
            }
            for change, outcome in gaps.tried
        ],
    }

"""Each engine against the mutant that is in place in this process: what it found, how fast, and how short a story it makes of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fuzz.atheris_engine import TargetFailed, run_atheris
from fuzz.check_scopes import CHECK_SCOPES
from fuzz.explore import Bounds, Explorer, Search
from fuzz.findings import Origin, minimise
from fuzz.mutants.catalogue import chosen
from fuzz.mutants.cell import Outcome
from fuzz.mutants.hook import VARIABLE
from fuzz.mutants.upstream import run_upstream, write_pool
from fuzz.outcome import HarnessBroken, raised_by_harness
from fuzz.random_engine import run_random
from fuzz.results import MissingExtra
from fuzz.states import JointStates
from fuzz.watchdog import Hang, time_limit
from fuzz.workers import HarnessFailure
from impl.errors import Verdict
from model.limits import SCOPES
from model.trace import Trace, format_trace

if TYPE_CHECKING:
    from collections.abc import Callable

    from fuzz.mutants.cell import Orders
    from fuzz.results import EngineResult

_MAX_STEPS: Final = 100
_SHRINK_SECONDS: Final = 4.0
_ENDLESS: Final = frozenset({"Hang"})
"""Each replay of these waits for a time limit, so they are not minimised."""
_FIRST_TURN_SECONDS: Final = 0.5
_UNMINIMISED_SECONDS: Final = 45.0
"""Minimising stops being worth its time."""
_COMPONENT_SHARE: Final = 0.3
"""Of the time of the Hypothesis machines: a component's own machine finds within seconds what it finds."""
_MACHINE_FAILED: Final = "the machine failed"
"""How `drc` begins what it says when a process died, or the disk is full."""
ALL_SUBJECTS: Final = ("layout", "memory operations", "lookup", "registry", "counting")
SUBJECTS: Final = {
    "layout": ("layout", "memory operations"),
    "stack_maps": ("lookup", "registry", "memory operations"),
    **dict.fromkeys(("activations_table", "arena", "collector", "externref", "hash_set", "stack"), ("memory operations",)),
}
"""What `drc prove` calls the obligations that run functions of a module. Those of the counting protocol run none."""


def _from_result(result: EngineResult, origin: Origin, keep: Callable[[Outcome], None]) -> None:
    """Keep what a campaign's engine found; then minimise it and keep that."""
    found = result.finding
    if found is None:
        keep(Outcome(seconds=result.seconds, operations=result.operations))
        return
    whole = Trace(result.limits, found.rows[: found.chosen])
    outcome = Outcome(
        killed=True,
        verdict=found.verdict,
        text=found.text,
        seconds=result.seconds,
        operations=result.operations,
        story=len(whole.rows),
        whole=True,
        checked=result.checked,
        trace=format_trace(whole),
    )
    keep(outcome)
    if found.verdict in _ENDLESS:
        return
    try:
        with time_limit(_UNMINIMISED_SECONDS):
            finding = minimise(result.limits, found, checked=result.checked, origin=origin)
    except Hang:
        return
    if not finding.kept_whole:
        keep(replace(outcome, story=len(finding.trace.rows), whole=False, trace=format_trace(finding.trace)))


def _guarded(run: Callable[[], EngineResult], name: str, seed: int, keep: Callable[[Outcome], None]) -> None:
    """Run a campaign's engine; what breaks before the first operation, or breaks the harness, is a kill too."""
    start = time.monotonic()
    try:
        result = run()
    except MissingExtra as missing:
        keep(Outcome(status="unavailable", text=str(missing)))
    except (HarnessFailure, HarnessBroken, TargetFailed) as error:
        keep(Outcome(killed=True, verdict="HarnessBroken", text=str(error)[-400:], seconds=time.monotonic() - start))
    except (Verdict, Exception) as error:
        if raised_by_harness(error):
            raise
        keep(Outcome(killed=True, verdict=type(error).__name__, text=f"at the start: {error}", seconds=time.monotonic() - start))
    else:
        _from_result(result, Origin(name, result.limits.scope, seed), keep)


def random(orders: Orders, keep: Callable[[Outcome], None]) -> None:
    """The random campaign on everything."""
    _guarded(lambda: run_random(SCOPES["everything"], seconds=orders.seconds, runs=None, seed=orders.seed), "random", orders.seed, keep)


def hypothesis(orders: Orders, keep: Callable[[Outcome], None]) -> None:
    """The machine of the mutated component alone, if there is one, for a part of the time; then that of the runtime on everything."""
    from fuzz.machines import engine

    start = time.monotonic()
    if find_spec("hypothesis") is not None:
        from fuzz.machines.components import COMPONENTS, run_component

        name = os.environ.get(VARIABLE)
        # The control runs them all.
        modules = [module for module in COMPONENTS if name is None or module == chosen(name).module]
        for module in modules:
            verdict, text = run_component(module, seconds=orders.seconds * _COMPONENT_SHARE / len(modules), seed=orders.seed)
            if verdict:
                keep(Outcome(killed=True, verdict=verdict, text=text, seconds=time.monotonic() - start, where=module))
                return
    left = max(0.0, orders.seconds - (time.monotonic() - start))

    def run() -> EngineResult:
        return engine.run_hypothesis(
            SCOPES["everything"],
            seconds=left,
            runs=None,
            seed=orders.seed,
            max_steps=_MAX_STEPS,
            shrink_seconds=_SHRINK_SECONDS,
        )

    _guarded(run, "hypothesis", orders.seed, keep)


def atheris(orders: Orders, keep: Callable[[Outcome], None]) -> None:
    """The coverage-guided target on everything."""

    def run() -> EngineResult:
        with tempfile.TemporaryDirectory(prefix="drc-mutant-") as folder:
            return run_atheris(SCOPES["everything"], seconds=orders.seconds, runs=None, seed=orders.seed, folder=Path(folder))

    _guarded(run, "atheris", orders.seed, keep)


def check(orders: Orders, keep: Callable[[Outcome], None]) -> None:
    """Exhaustive search of all small scopes, in turns that get longer, until one is violated.

    In turns, because most violations are shallow and nobody knows in which scope.
    """
    start = time.monotonic()
    searches = {scope: Search() for scope in CHECK_SCOPES}
    turn = _FIRST_TURN_SECONDS
    end = start + orders.seconds
    while not all(search.complete for search in searches.values()) and time.monotonic() < end:
        for scope, search in searches.items():
            left = end - time.monotonic()
            if search.complete or left <= 0:
                continue
            limits = CHECK_SCOPES[scope]
            try:
                explorer = Explorer(JointStates(limits, symmetry=True), search, Bounds(seconds=min(turn, left)))
                explorer.run()
            except (HarnessBroken, Verdict, Exception) as error:
                if not isinstance(error, HarnessBroken) and raised_by_harness(error):
                    raise
                text = str(error)[-400:]
                keep(Outcome(killed=True, verdict=type(error).__name__, text=text, seconds=time.monotonic() - start, where=scope))
                return
            violation = explorer.violation
            if violation is not None:
                found = Outcome(killed=True, verdict=violation.divergence.verdict, text=violation.divergence.text, where=scope)
                found.seconds = time.monotonic() - start
                found.operations = sum(search.transitions for search in searches.values())
                found.story, found.steps = len(violation.rows), violation.steps
                found.trace = format_trace(Trace(limits, violation.rows))
                keep(found)
                return
        turn *= 2
    complete = sum(search.complete for search in searches.values())
    operations = sum(search.transitions for search in searches.values())
    text = f"{complete} of {len(searches)} scopes searched to their end"
    keep(Outcome(text=text, seconds=time.monotonic() - start, operations=operations))


def prove(orders: Orders, keep: Callable[[Outcome], None]) -> None:
    """The proofs about the mutated module: an obligation that is refuted, or cannot even be stated any more, is a kill."""
    start = time.monotonic()
    limit = max(20 * orders.seconds, 600.0)
    name = os.environ.get(VARIABLE)
    # The control asks everything.
    subjects = ALL_SUBJECTS if name is None else SUBJECTS.get(chosen(name).module)
    if subjects is None:
        keep(Outcome(status="unavailable", text="no proof is about this module"))
        return
    for subject in subjects:
        command = [sys.executable, "-m", "drc", "prove", "--json", subject]
        left = limit - (time.monotonic() - start)
        try:
            done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=left, check=False)  # noqa: S603
        except subprocess.TimeoutExpired:
            keep(Outcome(status="unavailable", text=f"the proofs did not end within {limit:g} seconds"))
            return
        seconds = time.monotonic() - start
        said = (done.stderr.strip().splitlines() or [""])[-1]
        if done.returncode == 2:  # what cannot be asked here, for want of a solver
            keep(Outcome(status="unavailable", text=said))
            return
        if _MACHINE_FAILED in said:
            # This says nothing about the mutant.
            keep(Outcome(status="failed", text=said[-400:]))
            return
        if done.returncode not in {0, 3}:
            verdict = "Refuted" if done.returncode == 1 else "Unstated"
            text = _refuted(done.stdout) if done.returncode == 1 else said[-400:]
            keep(Outcome(killed=True, verdict=verdict, text=text, seconds=seconds, where=subject))
            return
    keep(Outcome(seconds=time.monotonic() - start))


def _refuted(said: str) -> str:
    """Return the first name of an obligation whose verdict is not what was expected, as far as the report tells."""
    try:
        told = json.loads(said)
    except json.JSONDecodeError:
        return said.strip().splitlines()[-1] if said.strip() else ""
    for entry in told.get("obligations", []) if isinstance(told, dict) else []:
        if isinstance(entry, dict) and entry.get("verdict") != entry.get("expected"):
            return f"{entry.get('name')}: {entry.get('verdict')}, expected {entry.get('expected')}"
    return ""


def upstream(orders: Orders, keep: Callable[[Outcome], None]) -> None:
    """Recorded programs, judged by counting at their end."""
    keep(run_upstream(Path(orders.pool), checked=False))


def sanitised(orders: Orders, keep: Callable[[Outcome], None]) -> None:
    """The same on the checked memory."""
    keep(run_upstream(Path(orders.pool), checked=True))


def record(orders: Orders, keep: Callable[[Outcome], None]) -> None:
    """Record the programs. Not an engine: what the last two replay."""
    start = time.monotonic()
    operations = write_pool(Path(orders.pool), orders.seconds, orders.seed)
    keep(Outcome(seconds=time.monotonic() - start, operations=operations))


RUN: Final = {
    "random": random,
    "hypothesis": hypothesis,
    "atheris": atheris,
    "check": check,
    "prove": prove,
    "upstream": upstream,
    "sanitised": sanitised,
    "record": record,
}

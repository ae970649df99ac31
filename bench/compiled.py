"""The compiled search against the interpreted one, which is its oracle: the same counts, or there is nothing to time."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Final

import typer
from rich.console import Console
from rich.table import Table

from fuzz.check_scopes import CHECK_SCOPES
from fuzz.compiled.search import search
from fuzz.explore import Explorer
from fuzz.states import JointStates

if TYPE_CHECKING:
    from collections.abc import Sequence

SMOKE: Final = ("segments",)
_COLUMNS: Final = ("scope", "states", "transitions", "depth", "interpreted, transitions/s", "compiled, transitions/s", "ratio")


def compare(names: Sequence[str] = (), *, smoke: bool = False, as_json: bool = False) -> int:
    """Search check scopes with both readings, without symmetry; return 1 if any number differs, else 0.

    The first compiled search of a state of the sources waits for the compiler: some minutes.
    """
    rows = []
    differing = []
    chosen = names or (SMOKE if smoke else tuple(CHECK_SCOPES))
    sys.stderr.write("compiling, unless this state of the sources was compiled before\n")
    search(CHECK_SCOPES[chosen[0]])
    for name in chosen:
        sys.stderr.write(f"{name}\n")
        began = time.perf_counter()
        found = search(CHECK_SCOPES[name])
        compiled_seconds = time.perf_counter() - began
        began = time.perf_counter()
        explorer = Explorer(JointStates(CHECK_SCOPES[name], symmetry=False))
        oracle = explorer.run()
        seconds = time.perf_counter() - began
        ours = (found.states, found.transitions, found.depth, found.counts, found.shown, found.complete, found.violation is None)
        theirs = (oracle.states, oracle.transitions, oracle.depth, oracle.counts, oracle.shown, oracle.complete, explorer.violation is None)
        if ours != theirs:
            differing.append(f"{name}: compiled {ours}, interpreted {theirs}")
        rate, compiled_rate = oracle.transitions / seconds, found.transitions / compiled_seconds
        rows.append((name, found.states, found.transitions, found.depth, round(rate), round(compiled_rate), compiled_rate / rate))
    if as_json:
        typer.echo(json.dumps({"columns": _COLUMNS, "rows": rows, "differing": differing}))
    else:
        _print(rows)
    for line in differing:
        typer.echo(line)
    return 1 if differing else 0


def _print(rows: Sequence[tuple[str, int, int, int, int, int, float]]) -> None:
    table = Table(*_COLUMNS)
    for column in table.columns[1:]:
        column.justify = "right"
    for name, *numbers, ratio in rows:
        table.add_row(name, *(f"{number:,}" for number in numbers), f"{ratio:.1f}")
    Console(width=120).print(table)

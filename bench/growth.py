"""`python -m bench.growth` says how the cost of a search grows with one bound: a table, and a plot if it is asked for.

Each search is a process of its own, so that its memory is its own.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from fuzz.check_scopes import CHECK_SCOPES, DEEP_SCOPES
from fuzz.compiled.search import CompiledExplorer
from fuzz.explore import Bounds
from fuzz.workers import usable_processors
from model.limits import with_numbers

SECONDS_MAX: Final = 900
_COLUMNS: Final = ("states", "transitions", "depth", "seconds", "bytes a state", "states/s", "growth")


def main(
    scope: Annotated[str, typer.Option(help="A scope of drc check.")] = "deep-calls",
    bound: Annotated[str, typer.Option(help="The bound that grows.")] = "contexts",
    first: Annotated[int, typer.Option(help="Its first value.")] = 2,
    last: Annotated[int, typer.Option(help="Its last value; a search of more than 15 minutes is the last as well.")] = 7,
    jobs: Annotated[int, typer.Option(help="Processes of each search; 0 for one on each processor.", min=0)] = 0,
    plot: Annotated[Path | None, typer.Option(help="Write a plot to this .svg or .png file; needs matplotlib.")] = None,
    one: Annotated[bool, typer.Option("--one", hidden=True)] = False,
) -> None:
    """Search a scope without symmetry for each value of a bound, and print what that costs."""
    if one:
        sys.stdout.write(json.dumps(_search(scope, bound, first, jobs or usable_processors())))
        return
    rows: list[dict[str, Any]] = []
    typer.echo(f"| {bound} | " + " | ".join(_COLUMNS) + " |\n" + "| ---: " * (1 + len(_COLUMNS)) + "|")
    for value in range(first, last + 1):
        line = [
            sys.executable,
            "-m",
            "bench.growth",
            "--one",
            "--scope",
            scope,
            "--bound",
            bound,
            "--first",
            str(value),
            "--jobs",
            str(jobs),
        ]
        done = subprocess.run(line, stdout=subprocess.PIPE, text=True, check=True, timeout=2 * SECONDS_MAX)  # noqa: S603  # this interpreter
        found = json.loads(done.stdout)
        growth = f"{found['states'] / rows[-1]['states']:.1f}" if rows else ""
        rows.append(found)
        cells = (f"{found['states']:,}", f"{found['transitions']:,}", found["depth"], f"{found['seconds']:.1f}")
        rates = (f"{found['bytes']:.0f}", f"{found['states'] / found['seconds']:,.0f}", growth)
        typer.echo(f"| {value} | " + " | ".join(map(str, (*cells, *rates))) + " |" + ("" if found["complete"] else " not complete"))
        if not found["complete"]:
            break
    if plot is not None:
        _plot(plot, f"{scope}, {bound}", list(range(first, first + len(rows))), rows)


def _search(scope: str, bound: str, value: int, jobs: int) -> dict[str, Any]:
    limits = with_numbers((CHECK_SCOPES | DEEP_SCOPES)[scope], {bound: value})
    explorer = CompiledExplorer(limits, symmetry=False, jobs=jobs, bounds=Bounds(seconds=SECONDS_MAX))
    before = _peak()
    began = time.monotonic()
    found = explorer.run()
    seconds = time.monotonic() - began
    numbers = {"states": found.states, "transitions": found.transitions, "depth": found.depth, "complete": found.complete}
    return {**numbers, "seconds": seconds, "bytes": (_peak() - before) / found.states}


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _plot(path: Path, title: str, values: list[int], rows: list[dict[str, Any]]) -> None:
    import matplotlib as mpl

    mpl.use("svg" if path.suffix == ".svg" else "agg")
    from matplotlib import pyplot as plt

    # Nothing in the file depends on when or where it was made.
    mpl.rcParams["svg.hashsalt"] = "drc"
    figure, axes = plt.subplots(figsize=(7, 4))
    axes.semilogy(values, [row["states"] for row in rows], "o-", label="states")
    axes.semilogy(values, [row["transitions"] for row in rows], "s-", label="transitions")
    axes.set_xlabel(title)
    axes.set_ylabel("states, transitions")
    axes.set_xticks(values)
    axes.grid(visible=True, which="major", alpha=0.3)
    seconds = axes.twinx()
    seconds.semilogy(values, [row["seconds"] for row in rows], "^--", color="tab:red", label="seconds")
    seconds.set_ylabel("seconds")
    lines = [*axes.get_lines(), *seconds.get_lines()]
    axes.legend(lines, [str(line.get_label()) for line in lines], loc="upper left")
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


if __name__ == "__main__":
    typer.run(main)

"""`python -m bench` measures each layer and prints ratios, speeds and the hash of what was done."""

from __future__ import annotations

import json
import platform
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.console import Console
from rich.table import Table

from bench import compiled, engines, lockstep, parts
from bench.alone import ReplayMismatch
from bench.peers import compare
from bench.report import say
from bench.workload import FULL_SIZE, SMOKE_SIZE, Workload, result_hash, workloads
from fuzz.atheris_engine import TargetFailed
from fuzz.driver import Divergence
from model.limits import SCOPES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from bench.report import Report

BENCHMARKS: Final[dict[str, Callable[[dict[str, Workload]], Report]]] = {
    "lockstep": lockstep.run,
    "parts": parts.run,
    "hypothesis": engines.run_hypothesis_steps,
    "atheris": engines.run_atheris_executions,
    "campaigns": compiled.run_campaigns,
    "searches": compiled.run_searches,
    "steps": compiled.run_parts,
}
PEERS: Final = "peers"
"""Compares checkers, takes minutes and needs programs that are no part of a Python environment: runs only when it is named."""
WIDEST: Final = "everything"
"""The scope that every benchmark measures."""
EVERY_SCOPE: Final = frozenset({"lockstep", "campaigns"})
"""Benchmarks that measure all scopes unless some are named."""

WIDTH: Final = 120
"""Characters of a line that goes to no terminal."""


def _known(choices: Iterable[str]) -> Callable[[list[str] | None], list[str]]:
    """Return a callback that accepts these names alone."""
    known = tuple(choices)

    def check(names: list[str] | None) -> list[str]:
        for name in names or []:
            if name not in known:
                raise typer.BadParameter(f"{name!r} is none of {', '.join(known)}")
        return names or []

    return check


def main(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            callback=_known((*BENCHMARKS, PEERS)),
            help=f"Any of: {', '.join(BENCHMARKS)}; all if none is named. Or {PEERS} alone.",
            show_default=False,
        ),
    ] = None,
    *,
    scope: Annotated[
        list[str] | None, typer.Option(callback=_known(SCOPES), help="Measure this scope; may be given again.", show_default=False)
    ] = None,
    smoke: Annotated[bool, typer.Option("--smoke", help="As little as shows that the benchmarks work.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measure how fast each layer is, against the others.

    Example: python -m bench lockstep --scope everything
    """
    if names and PEERS in names:
        if names != [PEERS] or scope:
            raise typer.BadParameter(f"{PEERS} is measured alone, on bounds of its own")
        raise typer.Exit(compare.peers(smoke=smoke, as_json=as_json))
    size = SMOKE_SIZE if smoke else FULL_SIZE
    found = workloads(size)
    try:
        reports = [BENCHMARKS[name](_picked(name, scope or [], found)) for name in names or BENCHMARKS]
        digest = result_hash(found)
    except Divergence as divergence:
        typer.echo(f"bench: the two sides disagree, so there is nothing to time: {divergence}", err=True)
        raise typer.Exit(1) from None
    except (ReplayMismatch, TargetFailed, compiled.ReadingsDiffer) as failure:
        typer.echo(f"bench: {failure}", err=True)
        raise typer.Exit(4) from None
    if as_json:
        text = json.dumps({"python": platform.python_version(), "hash": digest, "reports": [report.as_json() for report in reports]})
        typer.echo(text)
    else:
        _print(reports, digest, found)
    if not any(report.rows for report in reports):
        raise typer.Exit(2)


def _picked(name: str, scopes: list[str], found: dict[str, Workload]) -> dict[str, Workload]:
    """Return the workloads that a benchmark measures."""
    if scopes:
        return {scope: found[scope] for scope in dict.fromkeys(scopes)}
    return found if name in EVERY_SCOPE else {WIDEST: found[WIDEST]}


def _print(reports: list[Report], digest: str, found: dict[str, Workload]) -> None:
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH)
    for report in reports:
        console.print(f"[bold]{report.name}[/bold]: {report.claim}", highlight=False)
        if report.missing:
            console.print(f"not measured: {report.missing}\n", markup=False, highlight=False)
            continue
        table = Table(*report.columns)
        for column, cell in zip(table.columns, report.rows[0], strict=True):
            column.justify = "left" if isinstance(cell, str) else "right"
        for row in report.rows:
            table.add_row(*(say(cell) for cell in row))
        console.print(table)
        console.print(f"one access to raw memory: {report.access_ns:.1f} ns\n", highlight=False)
    steps = sum(workload.steps for workload in found.values())
    console.print(f"result hash over {steps:,} operations of {len(found)} scopes: {digest}", highlight=False)


if __name__ == "__main__":
    typer.run(main)

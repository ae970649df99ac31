"""`python -m bench peers` counts the same states with three checkers in one run, and is content only if all agree."""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import typer
from rich.console import Console
from rich.table import Table

from bench.peers.checkers import Count, PeerBounds, missing_spin, missing_tlc, run_drc, run_spin, run_tlc
from bench.peers.process import PeerFailed, PeerObjects
from fuzz.compiled.library import available, build

if TYPE_CHECKING:
    from collections.abc import Callable

OURS: Final = "drc, 1 process"
BOTH: Final = "drc, 2 processes"
INTERPRETED: Final = "drc, interpreted"
TLC: Final = "TLC, 2 workers"
SPIN: Final = "Spin"
REDUCED: Final = "drc, symmetry"
FULL: Final = {
    PeerBounds(objects=3, roots=3): (OURS, BOTH, TLC, SPIN, REDUCED, INTERPRETED),
    PeerBounds(objects=3, roots=2, slots=2, arguments=2): (OURS, BOTH, TLC, SPIN, REDUCED, INTERPRETED),
    PeerBounds(objects=2, roots=2, contexts=3, slots=2, destructor_ops=2): (OURS, BOTH, TLC, SPIN, REDUCED, INTERPRETED),
    PeerBounds(objects=4, roots=3): (OURS, BOTH, TLC, SPIN, REDUCED),
    # Five million steps: TLC would need several minutes.
    PeerBounds(objects=5, roots=3): (OURS, BOTH, SPIN, REDUCED),
}
"""Who is asked about which bounds."""
SMOKE: Final = dict.fromkeys(
    (PeerBounds(objects=1, roots=1), PeerBounds(), PeerBounds(objects=2, roots=1, slots=2)), FULL[PeerBounds(3, 3)]
)
WIDTH: Final = 130
MEGABYTE: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Line:
    """One checker on some bounds.

    Args:
        bounds: these.
        checker: its name.
        count: what it said.
    """

    bounds: PeerBounds
    checker: str
    count: Count


def checkers() -> tuple[dict[str, Callable[[PeerBounds, Path], Count]], list[str]]:
    """Return who can be asked here, in the order of the table, and a line for each who cannot."""
    fast = available()
    found: dict[str, Callable[[PeerBounds, Path], Count]] = {
        OURS: lambda bounds, folder: run_drc(bounds, folder, symmetry=False, jobs=1, fast=fast),
        BOTH: lambda bounds, folder: run_drc(bounds, folder, symmetry=False, jobs=2, fast=fast),
        TLC: run_tlc,
        SPIN: run_spin,
        REDUCED: lambda bounds, folder: run_drc(bounds, folder, symmetry=True, jobs=1, fast=fast),
        INTERPRETED: lambda bounds, folder: run_drc(bounds, folder, symmetry=False, jobs=1, fast=False),
    }
    missing = []
    for name, why in ((TLC, missing_tlc()), (SPIN, missing_spin())):
        if why:
            del found[name]
            missing.append(f"{name.partition(',')[0]} is left out: {why}")
    return found, missing


def disagreements(lines: list[Line]) -> list[str]:
    """Say where two checkers do not count the same states and steps. Symmetry may only count less."""
    found = []
    for line in lines:
        ours = next(other.count for other in lines if other.bounds == line.bounds and other.checker == OURS)
        mine, theirs = (ours.states, ours.steps), (line.count.states, line.count.steps)
        if theirs != mine if line.checker != REDUCED else theirs[0] > mine[0]:
            found.append(
                f"{line.bounds.words()}: {OURS} counts {mine[0]:,} states and {mine[1]:,} steps, "
                f"{line.checker} counts {theirs[0]:,} and {theirs[1]:,}"
            )
    return found


def measure(wanted: dict[PeerBounds, tuple[str, ...]], asked: dict[str, Callable[[PeerBounds, Path], Count]]) -> list[Line]:
    """Ask checkers about bounds, one after another.

    Args:
        wanted: for each of the bounds, who is to be asked.
        asked: who is here.

    Raises:
        PeerFailed: one of them did not complete.
        PeerObjects: one of them found something wrong.
    """
    lines = []
    for each, name in ((each, name) for each, names in wanted.items() for name in names if name in asked):
        typer.echo(f"{each.words()}: {name}", err=True)
        with tempfile.TemporaryDirectory(prefix="drc-peers-") as folder:
            lines.append(Line(each, name, asked[name](each, Path(folder))))
    return lines


def peers(*, smoke: bool, as_json: bool) -> int:
    """Compare, print, and return the exit code: 1 if they disagree or one objects, 2 if there is no peer, 4 if one failed."""
    asked, missing = checkers()
    for line in missing:
        typer.echo(line, err=True)
    if len(missing) > 1:
        typer.echo("bench: no peer is here to be compared with", err=True)
        return 2
    if available():
        # Our code is compiled once for each state of the sources, and not within what is measured.
        build()
    else:
        typer.echo("drc is interpreted in all its lines: no C compiler", err=True)
    try:
        lines = measure(SMOKE if smoke else FULL, asked)
    except (PeerFailed, PeerObjects) as failure:
        typer.echo(f"bench: {failure}", err=True)
        return 1 if isinstance(failure, PeerObjects) else 4
    wrong = disagreements(lines)
    if as_json:
        typer.echo(json.dumps({"peers": [_as_json(line) for line in lines], "missing": missing, "disagreements": wrong}))
    else:
        _print(lines)
        for text in missing:
            typer.echo(text)
        if not wrong:
            typer.echo(f"all agree on the distinct states and the steps of {len({line.bounds for line in lines})} bounds")
    for text in wrong:
        typer.echo(f"bench: {text}", err=True)
    return 1 if wrong else 0


def _as_json(line: Line) -> dict[str, Any]:
    count = line.count
    return {
        "bounds": asdict(line.bounds),
        "checker": line.checker,
        "states": count.states,
        "steps": count.steps,
        "seconds": count.ran.seconds,
        "cpu_seconds": count.ran.cpu_seconds,
        "own_seconds": count.own_seconds,
        "peak_bytes": count.ran.peak_bytes,
    }


def _print(lines: list[Line]) -> None:
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH)
    for bounds in dict.fromkeys(line.bounds for line in lines):
        table = Table(title=f"scope peers, {bounds.words()}", title_justify="left")
        for heading in ("checker", "states", "steps", "seconds", "steps/s", "times ours", "processor s", "times ours", "MB"):
            table.add_column(heading, justify="left" if heading == "checker" else "right")
        here = [line for line in lines if line.bounds == bounds]
        ours = next(line.count.ran for line in here if line.checker == OURS)
        for line in here:
            table.add_row(*_cells(line, ours.seconds, ours.cpu_seconds))
        console.print(table)
    console.print(
        "seconds: from the start of the process to its end; Spin's include translating and compiling, and in brackets the search alone.\n"
        "Ours do not include compiling, which is done once for all bounds.\n"
        "processor s: of all its processes and threads. times ours: over `drc, 1 process`.",
        markup=False,
        highlight=False,
    )


def _cells(line: Line, seconds: float, cpu_seconds: float) -> tuple[str, ...]:
    count, ran = line.count, line.count.ran
    own = f" ({count.own_seconds:.1f})" if count.own_seconds else ""
    return (
        line.checker,
        f"{count.states:,}",
        f"{count.steps:,}",
        f"{ran.seconds:.1f}{own}",
        f"{count.steps / ran.seconds:,.0f}",
        f"{ran.seconds / seconds:.2f}",
        f"{ran.cpu_seconds:.1f}",
        f"{ran.cpu_seconds / cpu_seconds:.2f}",
        f"{ran.peak_bytes // MEGABYTE:,}",
    )

"""The kill matrix in words: a row for each mutant, a column for each engine, and what each engine is worth at the end."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any, TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fuzz.live import Lines
from fuzz.mutants.names import COUNTED, ENGINES
from fuzz.report import WIDTH

if TYPE_CHECKING:
    from fuzz.mutants.catalogue import Mutant
    from fuzz.mutants.cell import Outcome
    from fuzz.mutants.matrix import Matrix


class MutantProgress(Lines):
    """Tells how a matrix fills. To be used in a `with` block.

    Args:
        stream: where to.
        total: cells in all.
    """

    def __init__(self, stream: TextIO, total: int) -> None:
        self.total = total
        self.done = 0
        super().__init__(stream, lambda: Text(f"{self.done} of {self.total} cells"))

    def tell(self, mutant: Mutant | None, engine: str, outcome: Outcome) -> None:
        """A cell is done."""
        self.done += 1
        name = "control" if mutant is None else mutant.name
        self.say(f"[{self.done}/{self.total}] {name}, {engine}: {in_words(outcome)}")


def in_words(outcome: Outcome) -> str:
    """Say what came of a cell."""
    if outcome.status != "ran":
        return f"{outcome.status}: {outcome.text}"
    if not outcome.killed:
        return f"not noticed in {outcome.seconds:.1f} s, {outcome.operations:,} operations"
    story = f", story of {outcome.story}{' (not minimised)' if outcome.whole else ''}" if outcome.story else ""
    return f"{outcome.verdict} after {outcome.seconds:.1f} s, {outcome.operations:,} operations{story}"


def _cell(outcome: Outcome | None) -> str:
    """Return seconds, operations and length of the story, or a dot."""
    if outcome is None:
        return ""
    if outcome.status != "ran":
        return "n/a" if outcome.status == "unavailable" else "failed"
    if not outcome.killed:
        return "."
    story = f"{outcome.story}{'+' if outcome.whole else ''}" if outcome.story else "-"
    return f"{outcome.seconds:.1f} {outcome.operations} {story}"


def table(matrix: Matrix) -> Table:
    """Return the matrix."""
    rows = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    rows.add_column("mutant", no_wrap=True)
    rows.add_column("class", no_wrap=True)
    for engine in matrix.engines:
        rows.add_column(engine, justify="right", no_wrap=True)
    for mutant in matrix.mutants:
        rows.add_row(mutant.name, mutant.severity, *(_cell(matrix.cells.get((mutant.name, engine))) for engine in matrix.engines))
    return rows


def totals(matrix: Matrix) -> Table:
    """Return what each engine is worth."""
    rows = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("engine", "noticed", "of", "memory-safety", "alone", "median seconds", "median story"):
        rows.add_column(heading, justify="left" if heading == "engine" else "right", no_wrap=True)
    for engine in matrix.engines:
        ran = [mutant for mutant in matrix.mutants if matrix.cell(mutant, engine).status == "ran"]
        killed = [mutant for mutant in ran if matrix.cell(mutant, engine).killed]
        cells = [matrix.cell(mutant, engine) for mutant in killed]
        stories = [cell.story for cell in cells if cell.story and not cell.whole]
        rows.add_row(
            engine,
            str(len(killed)),
            str(len(ran)),
            str(sum(mutant.severity == "memory-safety" for mutant in killed)),
            str(sum(matrix.kills(mutant) == [engine] for mutant in killed)),
            f"{statistics.median(cell.seconds for cell in cells):.1f}" if cells else "",
            f"{statistics.median(stories):g}" if stories else "",
        )
    return rows


def last_lines(matrix: Matrix) -> list[str]:
    """Return what it comes to."""
    lines = [f"{engine}: {ENGINES[engine]}" for engine in matrix.engines]
    for engine in matrix.engines:
        if not matrix.available(engine):
            texts = {cell.text for (_, name), cell in matrix.cells.items() if name == engine}
            lines.append(f"{engine} is not available: {'; '.join(sorted(texts)) or 'nothing was done'}")
    if matrix.wanted():
        survivors = matrix.survivors()
        safety = sum(mutant.severity == "memory-safety" for mutant in matrix.mutants)
        counted = [engine for engine in matrix.engines if engine in COUNTED and matrix.available(engine)]
        lines.append(
            f"{len(matrix.mutants)} mutants, {safety} of them memory-safety; {len(survivors)} noticed by fewer than "
            f"{matrix.wanted()} of {', '.join(counted)}"
        )
        lines += [f"survivor: {mutant.name} ({', '.join(matrix.kills(mutant)) or 'nobody'}): {mutant.breaks}" for mutant in survivors]
    return lines


def print_matrix(matrix: Matrix, stream: TextIO) -> None:
    """Print matrix, totals and what they come to; plain text wherever the stream is no terminal."""
    legend = ". not noticed; otherwise seconds, operations, length of the story (+ not minimised)"
    parts = [table(matrix), Text(), totals(matrix), Text(), Text(legend), *map(Text, last_lines(matrix))]
    console = Console(file=stream, highlight=False, soft_wrap=True)
    if console.is_terminal:
        console.print(*parts, sep="\n")
        return
    plain = Console(highlight=False, soft_wrap=True, width=2 * WIDTH, color_system=None, force_terminal=False)
    with plain.capture() as text:
        plain.print(*parts, sep="\n")
    stream.write("".join(line.rstrip() + "\n" for line in text.get().splitlines()))


def listing(mutants: list[Mutant], *, diffs: bool) -> list[str]:
    """Return what each mutant is; with its change as a diff if asked for."""
    width = max(len(mutant.name) for mutant in mutants)
    lines = []
    for mutant in mutants:
        lines.append(f"{mutant.name:{width}}  impl.{mutant.module:17}  {mutant.severity:13}  {mutant.origin}")
        if diffs:
            lines += ["", f"    {mutant.breaks}", "", *(f"    {line}".rstrip() for line in mutant.diff().splitlines()), ""]
    return lines


def as_json(matrix: Matrix) -> dict[str, Any]:
    """Return the matrix as a JSON object."""
    return {
        "engines": {engine: {"is": ENGINES[engine], "available": matrix.available(engine)} for engine in matrix.engines},
        "wanted": matrix.wanted(),
        "interrupted": matrix.interrupted,
        "survivors": [mutant.name for mutant in matrix.survivors()],
        "mutants": [
            {
                "id": mutant.name,
                "module": f"impl.{mutant.module}",
                "origin": mutant.origin,
                "class": mutant.severity,
                "breaks": mutant.breaks,
                "engines": {
                    engine: {
                        "status": cell.status,
                        "killed": cell.killed,
                        "verdict": cell.verdict,
                        "text": cell.text,
                        "seconds": round(cell.seconds, 3),
                        "operations": cell.operations,
                        "story": cell.story,
                        "steps": cell.steps,
                        "minimised": not cell.whole,
                        "memory": "checked" if cell.checked else "raw",
                        "scope": cell.where,
                        "trace": cell.trace,
                    }
                    for engine in matrix.engines
                    if (cell := matrix.cells.get((mutant.name, engine))) is not None
                },
            }
            for mutant in matrix.mutants
        ],
    }

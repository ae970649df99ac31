"""The shortest trace on which a mutant is noticed is kept as a file that says what must happen on the mended code.

Such a trace has to be possible to its end without the mutant, so what is impossible there is left out, and the rest is tried again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fuzz.driver import Driver
from fuzz.mutants.names import ENGINES
from fuzz.mutants.serving import Server
from model.limits import LIVE
from model.trace import Trace, format_row, format_trace, header, parse
from model.words import bits

if TYPE_CHECKING:
    from pathlib import Path

    from fuzz.mutants.catalogue import Mutant
    from fuzz.mutants.matrix import Matrix
    from model.limits import Limits
    from model.ops import Row

VERDICT: Final = "# verdict: "
MEMORIES: Final = {False: "raw", True: "checked"}


class _Witness(Driver):
    """A driver that counts who died until the rows are over."""

    def __init__(self, limits: Limits) -> None:
        super().__init__(limits)
        self.facts: tuple[int, list[int]] | None = None
        self.destroyed = 0

    def destroy(self, externref: int) -> None:
        """See `Driver.destroy`."""
        self.destroyed += 1
        super().destroy(externref)

    def closing_row(self) -> Row:
        """See `Driver.closing_row`; the first one is asked for when the rows are over."""
        if self.facts is None:
            self.facts = (self.destroyed, list(bits(self.state[LIVE])))
        return super().closing_row()


def keep(matrix: Matrix, folder: Path) -> list[str]:
    """Write the shortest trace of each mutant; return the names of those that have none.

    Args:
        matrix: with the engines' traces.
        folder: is made if it is not there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    without = []
    with Server() as server:
        for mutant in matrix.mutants:
            text = _shortest(matrix, mutant, server)
            if text is None:
                without.append(mutant.name)
            else:
                (folder / f"{mutant.name}.drc").write_text(text, encoding="utf-8")
    return without


def _shortest(matrix: Matrix, mutant: Mutant, server: Server) -> str | None:
    """Return the text of the shortest trace, or None."""
    # Among equals that of the exhaustive search, whose bounds are the smallest.
    engines = sorted(ENGINES, key=lambda engine: engine != "check")
    found = [matrix.cell(mutant, engine) for engine in engines if matrix.cell(mutant, engine).trace]
    for trace in sorted((parse(outcome.trace) for outcome in found), key=lambda trace: len(trace.rows)):
        possible = Trace(trace.limits, _possible(trace))
        for checked in (False, True):
            job = {"module": mutant.module, "text": mutant.mutated(), "trace": format_trace(possible), "checked": checked}
            outcome = server.ask(job)
            if outcome.killed:
                return _told(mutant, possible, f"{outcome.verdict} on the {MEMORIES[checked]} memory")
    return None


def _possible(trace: Trace) -> tuple[Row, ...]:
    """Return the operations of a trace that are possible on the mended code."""
    driver = Driver(trace.limits)
    skipped = {position for position, _ in driver.replay(trace.rows).skipped}
    return tuple(row for position, row in enumerate(trace.rows) if position not in skipped)


def _told(mutant: Mutant, trace: Trace, verdict: str) -> str:
    """Return the file: the trace as the mended code does it, and facts about its end."""
    driver = _Witness(trace.limits)
    outcome = driver.replay(trace.rows)
    destroyed, alive = driver.facts or (0, [])
    lines = [
        header(trace.limits),
        f"# {mutant.breaks}",
        f"# source: mutant {mutant.name} of impl.{mutant.module}: {mutant.origin}",
        "# must: both sides agree to the end.",
        f"{VERDICT}{verdict}",
        *("| " * depth + format_row(row, trace.limits) for row, depth in zip(trace.rows, outcome.depths, strict=True)),
        f"# expect: destroyed={destroyed}",
        f"# expect: alive={' '.join(map(str, alive))}",
    ]
    return "\n".join(lines) + "\n"

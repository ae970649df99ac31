"""What a user sees of a campaign: progress and speed on stderr; tables on stdout, the same bytes for the same work."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fuzz.live import Lines
from model.ops import SPECS, Kind
from model.properties import DESCRIPTIONS, Sometimes

if TYPE_CHECKING:
    from typing import TextIO

    from fuzz.campaign import Campaign, Part, Task
    from fuzz.findings import Finding
    from fuzz.results import EngineResult

WIDTH: Final = 100
_COLUMNS: Final = 3


class Progress(Lines):
    """Tells how a campaign goes on, on stderr: a live display on a terminal, a line now and then elsewhere.

    To be used in a `with` block.

    Args:
        stream: where to.
        total: number of tasks.
        runs: most runs of each task, or None.
    """

    def __init__(self, stream: TextIO, *, total: int, runs: int | None) -> None:
        self.total, self.runs = total, runs
        self.number = 0
        self.task: Task | None = None
        self.seconds: float | None = None
        self.result: EngineResult | None = None
        # Last: a display is drawn as soon as it is made.
        super().__init__(stream, self._display)

    def begin(self, task: Task, seconds: float | None) -> None:
        """A task begins."""
        self.number += 1
        self.task, self.seconds, self.result = task, seconds, None
        self.started = self.told = time.monotonic()

    def update(self, result: EngineResult) -> None:
        """The task has come so far. Cheap enough for each run."""
        self.result = result
        if self.due():
            self.say(f"{self._place()}: {self._figures(self.told)}")

    def end(self, part: Part) -> None:
        """The task is over."""
        result = part.result
        self.say(
            f"{self._place()}: {result.runs:,} runs, {result.operations:,} operations in {result.seconds:.1f} s, "
            f"{speed(result.operations, result.seconds)}"
        )

    def _place(self) -> str:
        place = str(self.task)
        return place if self.total == 1 else f"[{self.number}/{self.total}] {place}"

    def _figures(self, now: float) -> str:
        elapsed = now - self.started
        bound = "" if self.seconds is None else f" of {self.seconds:.0f}"
        figures = [f"{elapsed:.0f}{bound} s"]
        if (result := self.result) is not None:
            figures += [
                f"{result.runs:,}{'' if self.runs is None else f' of {self.runs:,}'} runs",
                f"{result.operations:,} operations",
                speed(result.operations, elapsed),
                f"kinds {sum(map(bool, result.counts))}/{len(Kind)}",
                f"sometimes {result.seen.bit_count()}/{len(Sometimes)}",
                f"findings {int(result.finding is not None)}",
            ]
        return ", ".join(figures)

    def _display(self) -> Text:
        if self.task is None:
            return Text("starting")
        return Text(f"{self._place()}\n  {self._figures(time.monotonic())}")


def speed(operations: int, seconds: float) -> str:
    """Return operations per second in words."""
    return f"{operations / seconds:,.0f} operations/s" if seconds > 0 else "0 operations/s"


def tables(campaign: Campaign) -> list[Table | Text]:
    """Return what a campaign did: operations by kind, sometimes properties, totals."""
    parts: list[Table | Text] = [_kinds(campaign), Text(), _sometimes(campaign), Text()]
    if len(campaign.parts) > 1:
        parts += [_tasks(campaign), Text()]
    parts.append(Text(totals(campaign)))
    return parts


def totals(campaign: Campaign) -> str:
    """Return the last line of the tables."""
    kinds, seen = sum(map(bool, campaign.counts)), sum(map(bool, campaign.seen_counts))
    findings = "nothing found" if campaign.finding is None else "1 finding"
    return (
        f"{campaign.runs:,} runs, {campaign.operations:,} operations; {kinds} of {len(Kind)} kinds executed, "
        f"{seen} of {len(Sometimes)} sometimes properties seen; {findings}"
    )


def _table(*headings: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in headings:
        numeric = heading in {"executed", "runs", "operations"}
        table.add_column(heading, justify="right" if numeric else "left", no_wrap=True)
    return table


def _kinds(campaign: Campaign) -> Table:
    table = _table(*("operation", "executed") * _COLUMNS)
    counts = campaign.counts
    enabled = frozenset[Kind]().union(*(part.task.limits.kinds for part in campaign.parts))
    cells = [(SPECS[kind].text, f"{counts[kind]:,}" if counts[kind] or kind in enabled else "off") for kind in Kind]
    height = -(-len(cells) // _COLUMNS)
    cells += [("", "")] * (height * _COLUMNS - len(cells))
    for row in range(height):
        table.add_row(*(word for column in range(_COLUMNS) for word in cells[column * height + row]))
    return table


def _sometimes(campaign: Campaign) -> Table:
    table = _table("runs", "sometimes")
    for what, count in zip(Sometimes, campaign.seen_counts, strict=True):
        table.add_row(f"{count:,}", DESCRIPTIONS[what])
    return table


def _tasks(campaign: Campaign) -> Table:
    table = _table("engine", "scope", "runs", "operations")
    for part in campaign.parts:
        table.add_row(part.task.engine, part.task.limits.scope, f"{part.result.runs:,}", f"{part.result.operations:,}")
    return table


def print_tables(campaign: Campaign, stream: TextIO) -> None:
    """Print the tables; plain text of one width wherever the stream is no terminal."""
    console = Console(file=stream, highlight=False, soft_wrap=True)
    if console.is_terminal:
        console.print(*tables(campaign), sep="\n")
        return
    plain = Console(highlight=False, soft_wrap=True, width=WIDTH, color_system=None, force_terminal=False)
    with plain.capture() as text:
        plain.print(*tables(campaign), sep="\n")
    stream.write("".join(line.rstrip() + "\n" for line in text.get().splitlines()))


def as_json(campaign: Campaign, finding: Finding | None, folder: str | None, missing: list[str]) -> dict[str, Any]:
    """Return a campaign as a JSON object without times."""
    counts, seen = campaign.counts, campaign.seen_counts
    return {
        "seed": campaign.seed,
        "runs": campaign.runs,
        "operations": campaign.operations,
        "kinds": {SPECS[kind].text: counts[kind] for kind in Kind},
        "sometimes": {what.name.lower(): seen[what] for what in Sometimes},
        "tasks": [
            {
                "engine": part.task.engine,
                "scope": part.task.limits.scope,
                "runs": part.result.runs,
                "operations": part.result.operations,
            }
            for part in campaign.parts
        ],
        "interrupted": campaign.interrupted,
        "missing": missing,
        "finding": None
        if finding is None
        else {
            "verdict": finding.divergence.verdict,
            "text": finding.divergence.text,
            "memory": "checked" if finding.checked else "raw",
            "run": finding.origin.run,
            "engine": finding.origin.engine,
            "scope": finding.origin.scope,
            "operations": len(finding.trace.rows),
            "operations_before": finding.operations,
            "kept_whole": finding.kept_whole,
            "trace": finding.trace_text(),
            "folder": folder,
        },
    }

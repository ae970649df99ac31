"""What a user sees of an exhaustive search: how far it has come while it runs, and at its end what it covered and what that means."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fuzz.explore import MEGABYTE, Search, SearchLoop, resident_bytes
from fuzz.live import Lines
from fuzz.report import WIDTH
from model.ops import SPECS, Kind
from model.properties import DESCRIPTIONS, Sometimes
from model.trace import header

if TYPE_CHECKING:
    from fuzz.compiled.search import CompiledExplorer
    from fuzz.explore import Violation
    from fuzz.findings import Finding
    from model.limits import Limits

_COLUMNS: Final = 3


@dataclass(frozen=True, slots=True)
class Told:
    """What a report says of a search beyond what the search knows.

    Args:
        scope: its name.
        limits: its bounds.
        symmetry: whether states count once that differ by a renaming.
        model_only: whether the model was searched alone.
        figures: how far it came and how fast, in one line.
    """

    scope: str
    limits: Limits
    symmetry: bool
    model_only: bool
    figures: str


class CheckProgress(Lines):
    """Tells how a search goes on: a live display on a terminal, a line now and then elsewhere. To be used in a `with` block.

    Args:
        stream: where to.
        scope: what is searched.
        search: the search.
    """

    def __init__(self, stream: TextIO, scope: str, search: Search) -> None:
        self.scope = scope
        self.search = search
        self.before = search.transitions
        # Last: a display is drawn as soon as it is made.
        super().__init__(stream, lambda: Text(self.figures()))

    def update(self) -> None:
        """The search has come further. Cheap enough for each state."""
        if self.due():
            self.say(self.figures())

    def figures(self) -> str:
        """Return how far the search has come, in one line."""
        search, elapsed = self.search, time.monotonic() - self.started
        rate = (search.transitions - self.before) / elapsed if elapsed > 0 else 0.0
        return (
            f"{self.scope}: {elapsed:.0f} s, depth {search.depth}, {search.states:,} states, {search.queue:,} in the queue, "
            f"{search.transitions:,} transitions, {rate:,.0f}/s, {resident_bytes() // MEGABYTE:,} MB"
        )


def verdict_lines(explorer: SearchLoop | CompiledExplorer, *, model_only: bool) -> list[str]:
    """Say in words what the search has shown, and what it has not."""
    search = explorer.search
    lines = [
        f"{search.states:,} states, {search.transitions:,} transitions, depth {search.deepest}, {search.queue:,} states left in the queue"
    ]
    if explorer.violation is not None:
        lines.append(f"violated after {explorer.violation.steps} {'steps' if model_only else 'operations'}; no violation has fewer")
    elif search.complete and model_only:
        lines.append("complete: within these bounds, the model breaks no property of its own, and what is under way can always go on")
    elif search.complete:
        lines.append("complete: within these bounds, the two sides agree in every state that can be reached, and after letting go of all")
    else:
        lines.append(f"not complete: {explorer.reached} reached; complete to depth {search.depth}")
    if not search.exact:
        lines.append(
            f"probability that a state was missed because two digests are equal: {search.collision_probability():.1e} (optimistic)"
        )
    return lines


def print_report(explorer: SearchLoop | CompiledExplorer, told: Told, stream: TextIO) -> None:
    """Print coverage and verdict; plain text of one width wherever the stream is no terminal."""
    verdict = Text("\n".join(verdict_lines(explorer, model_only=told.model_only)))
    parts = [_kinds(explorer.search, told.limits), Text(), _sometimes(explorer.search), Text(), verdict]
    console = Console(file=stream, highlight=False, soft_wrap=True)
    if console.is_terminal:
        console.print(*parts, sep="\n")
        return
    plain = Console(highlight=False, soft_wrap=True, width=WIDTH, color_system=None, force_terminal=False)
    with plain.capture() as text:
        plain.print(*parts, sep="\n")
    stream.write("".join(line.rstrip() + "\n" for line in text.get().splitlines()))


def _kinds(search: Search, limits: Limits) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("operation", "executed") * _COLUMNS:
        table.add_column(heading, justify="right" if heading == "executed" else "left", no_wrap=True)
    cells = [(SPECS[kind].text, f"{search.counts[kind]:,}" if search.counts[kind] or kind in limits.kinds else "off") for kind in Kind]
    height = -(-len(cells) // _COLUMNS)
    cells += [("", "")] * (height * _COLUMNS - len(cells))
    for row in range(height):
        table.add_row(*(word for column in range(_COLUMNS) for word in cells[column * height + row]))
    return table


def _sometimes(search: Search) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("transitions", justify="right", no_wrap=True)
    table.add_column("sometimes", no_wrap=True)
    for what, count in zip(Sometimes, search.shown, strict=True):
        table.add_row(f"{count:,}", DESCRIPTIONS[what])
    return table


def model_story(violation: Violation, limits: Limits) -> list[str]:
    """Tell a violation of the model alone: what is wrong, then a trace whose comments say what an implementation would decide."""
    return [f"{violation.divergence.verdict}: {violation.divergence.text}", header(limits), *violation.lines]


def as_json(explorer: SearchLoop | CompiledExplorer, told: Told, *, finding: Finding | None, folder: str | None) -> dict[str, Any]:
    """Return a search as a JSON object without times: the same for the same work, resumed or not."""
    search, violation, limits = explorer.search, explorer.violation, told.limits
    return {
        "scope": told.scope,
        "bounds": limits.numbers(),
        "model_only": told.model_only,
        "symmetry": told.symmetry,
        "exact": search.exact,
        "complete": search.complete and violation is None,
        "complete_to_depth": search.depth,
        "bound_reached": explorer.reached or None,
        "states": search.states,
        "transitions": search.transitions,
        "depth": search.deepest,
        "queue": search.queue,
        "collision_probability": search.collision_probability(),
        "kinds": {SPECS[kind].text: search.counts[kind] for kind in Kind},
        "kinds_never_possible": [SPECS[kind].text for kind in Kind if kind in limits.kinds and not search.counts[kind]],
        "sometimes": {what.name.lower(): search.shown[what] for what in Sometimes},
        "interrupted": explorer.interrupted,
        "finding": _finding_as_json(violation, told, finding, folder),
    }


def _finding_as_json(violation: Violation | None, told: Told, finding: Finding | None, folder: str | None) -> dict[str, Any] | None:
    if violation is None:
        return None
    divergence = violation.divergence if finding is None else finding.divergence
    found = {"verdict": divergence.verdict, "text": divergence.text, "steps": violation.steps}
    if finding is None:
        trace = "".join(f"{line}\n" for line in (header(told.limits), *violation.lines))
        return {**found, "operations": len(violation.rows), "trace": trace}
    return {
        **found,
        "operations": len(finding.trace.rows),
        "kept_whole": finding.kept_whole,
        "trace": finding.trace_text(),
        "folder": folder,
    }

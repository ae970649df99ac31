"""What an engine hands back, whichever engine it is: how much it did, what it reached, and the first disagreement."""

from __future__ import annotations

from dataclasses import dataclass, field

from fuzz.driver import Divergence, Outcome
from model.limits import Limits
from model.ops import Kind
from model.properties import Sometimes


@dataclass(slots=True)
class EngineResult:
    """The work of one engine on one set of limits.

    Args:
        limits: the bounds of the runs; with a finding, those under which it was found.
        checked: whether the checked memory was used.
        runs: runs begun, the one with the finding included.
        operations: operations executed, the finales included.
        counts: executions by kind, indexed by `Kind`.
        seen: mask of the sometimes properties that some run has seen.
        seen_counts: runs that saw each of them, indexed by `Sometimes`.
        finding: the disagreement, as small as the engine could make it; None when there was none.
        seconds: wall time.
        coverage: edges of the implementation that were reached, where the engine counts them.
        interrupted: the user ended it; the rest is what was known by then.
    """

    limits: Limits
    checked: bool = False
    runs: int = 0
    operations: int = 0
    counts: list[int] = field(default_factory=lambda: [0] * len(Kind))
    seen: int = 0
    seen_counts: list[int] = field(default_factory=lambda: [0] * len(Sometimes))
    finding: Divergence | None = None
    seconds: float = 0.0
    coverage: int | None = None
    interrupted: bool = False

    def add(self, outcome: Outcome) -> None:
        """Count one more run. Complexity: linear in the number of kinds."""
        self.runs += 1
        self.operations += outcome.steps
        self.seen |= outcome.seen
        self.seen_counts = [total + (outcome.seen >> bit & 1) for bit, total in enumerate(self.seen_counts)]
        self.counts = [total + count for total, count in zip(self.counts, outcome.counts, strict=True)]


class MissingExtra(Exception):
    """An engine needs a package that is not installed.

    Args:
        package: what could not be imported.
        extra: the optional extra of this distribution that brings it.
    """

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed: pip install 'drc-check[{extra}]'")
        self.package = package
        self.extra = extra

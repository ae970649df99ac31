"""How a run ends: with what it did, with a disagreement of the two sides, or with a failure of the harness itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from model.ops import Kind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from model.ops import Row


class HarnessBroken(RuntimeError):
    """The model, a chooser or the driver failed; this is no finding."""


def raised_by_harness(error: BaseException) -> bool:
    """Say whether an exception comes from the model or the engines. Looking at the implementation's memory is not among them.

    Too deep a recursion is the implementation's, whoever took the last step.
    """
    if isinstance(error, RecursionError):
        return False
    traceback = error.__traceback__
    module = ""
    while traceback is not None:
        module = traceback.tb_frame.f_globals.get("__name__", "")
        traceback = traceback.tb_next
    return module.startswith(("model.", "fuzz.")) and module != "fuzz.observe"


class Divergence(BaseException):
    """The two sides disagree. It is no `Exception`: simulated code must not swallow it.

    Args:
        verdict: the kind of disagreement, stable under shrinking (a class name).
        text: both sides, and what they said.
        rows: the operations so far, the finale included.
        depths: for each, how many destructors are running around it.
        chosen: how many of them were chosen; the rest is the finale.
    """

    def __init__(self, verdict: str, text: str, rows: Sequence[Row], depths: Sequence[int], chosen: int) -> None:
        super().__init__(f"{verdict}: {text}")
        self.verdict = verdict
        self.text = text
        self.rows = tuple(rows)
        self.depths = tuple(depths)
        self.chosen = chosen


@dataclass(slots=True)
class Outcome:
    """What a run did.

    Args:
        rows: operations chosen (the finale not included).
        depths: for each, how many destructors were running around it.
        steps: operations executed, the finale included.
        counts: executions by kind.
        seen: mask of sometimes properties.
        skipped: positions of given operations that were not possible, with the reason.
    """

    rows: tuple[Row, ...] = ()
    depths: tuple[int, ...] = ()
    steps: int = 0
    counts: list[int] = field(default_factory=lambda: [0] * len(Kind))
    seen: int = 0
    skipped: tuple[tuple[int, str], ...] = ()

"""A finding told as a short story: what each side says, then the operations that lead there and what each of them did."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Final

from impl import errors
from model.ops import BY_KIND
from model.trace import format_row

if TYPE_CHECKING:
    from fuzz.driver import Divergence
    from fuzz.narrator import Step, Telling

LINES_MAX: Final = 14
"""A longer story is cut in the middle, where the whole of it can be read elsewhere."""
_TEXT_WIDTH_MAX: Final = 60
_HEAD: Final = 3
_BOTH: Final = re.compile(r"(?:(?P<where>.*?): )?(?P<model>the model says .*?),? (?:but )?(?P<impl>the implementation .*)", re.DOTALL)
_KILLED_TOO_SOON: Final = re.compile(r"(value \d+) is destroyed while it must live: (.*)", re.DOTALL)
_KILLED_TWICE: Final = re.compile(r"(value \d+) is destroyed, but (.*)", re.DOTALL)
_KILLED_OUT_OF_TURN: Final = re.compile(r"(value \d+) is destroyed by an operation (.*)", re.DOTALL)


def sides(divergence: Divergence) -> tuple[str, str]:
    """Return what the model says and what the implementation says, each in a clause.

    >>> from fuzz.driver import Divergence
    >>> sides(Divergence("Violation", "value 0 is destroyed while it must live: held by the host", (), (), 0))
    ('value 0 must live: held by the host', 'destroys value 0')
    """
    text = divergence.text
    if match := _KILLED_TOO_SOON.fullmatch(text):
        return f"{match[1]} must live: {match[2]}", f"destroys {match[1]}"
    if match := _KILLED_TWICE.fullmatch(text):
        return match[2], f"destroys {match[1]} once more"
    if match := _KILLED_OUT_OF_TURN.fullmatch(text):
        return f"{match[1]} may not die in an operation {match[2]}", f"destroys {match[1]}"
    if divergence.verdict == "Violation":
        return text, "does not destroy it"
    if match := _BOTH.fullmatch(text):
        where = f"{match['where']}: " if match["where"] else ""
        return where + match["model"].removeprefix("the model "), where + match["impl"].removeprefix("the implementation ")
    return "agreed with every operation before", text


def step_lines(telling: Telling, *, finale: bool = False) -> list[str]:
    """Return a line for each step, numbered and aligned, with bars for the destructors that run around it.

    Args:
        telling: a replay in words.
        finale: one line for each step of the finale too, instead of one for all.
    """
    own = [step for step in telling.steps if finale or not step.finale]
    texts = ["| " * step.depth + format_row(step.row, telling.limits) for step in own]
    width = min(max(map(len, texts), default=0), _TEXT_WIDTH_MAX)
    digits = max(2, len(str(len(own))))
    lines = [
        f"{'>' if step.failed else ' '} {number:{digits}}  {text:{width}}  {step.words()}".rstrip()
        for number, (step, text) in enumerate(zip(own, texts, strict=True), start=1)
    ]
    if not finale and len(own) < len(telling.steps):
        lines.append(_finale_line([step for step in telling.steps if step.finale], telling, digits))
    return lines


def _finale_line(steps: list[Step], telling: Telling, digits: int) -> str:
    """Say the finale in one line: how many of what, and where it fails."""
    counts = Counter(BY_KIND[step.row[0]].text for step in steps)
    what = ", ".join(f"{count} {text}" if count > 1 else text for text, count in counts.items())
    failed = next((step for step in steps if step.failed), None)
    indent = f"{'>' if failed else ' '} {'':{digits}}  "
    ends = f"; {format_row(failed.row, telling.limits)}: {failed.words()}" if failed else ""
    return f"{indent}then the host lets go of everything ({what}){ends}"


def story(telling: Telling, *, where: str, notes: tuple[str, ...] = (), lines_max: int | None = None) -> list[str]:
    """Tell a finding.

    Args:
        telling: the replay of its trace, which ends in a divergence.
        where: how it was found, in a few words.
        notes: lines to put at the end.
        lines_max: cut the operations in the middle, so that the story has no more lines than this; None to tell all.

    Raises:
        ValueError: the telling ends well.
    """
    divergence = telling.divergence
    if divergence is None:
        raise ValueError("both sides agree to the end, so there is nothing to tell")
    model, implementation = sides(divergence)
    begin = [
        f"{divergence.verdict}{_meaning(divergence.verdict)}",
        f"  found by:           {where}",
        f"  the model:          {model}",
        f"  the implementation: {implementation}",
    ]
    steps = step_lines(telling)
    if lines_max is not None:
        room = lines_max - len(begin) - len(notes)
        if len(steps) > room:
            tail = max(room - _HEAD - 1, 1)
            left_out = len(steps) - _HEAD - tail
            steps = [*steps[:_HEAD], f"      ... {left_out} operations more ...", *steps[-tail:]]
    return [*begin, *steps, *notes]


def _meaning(verdict: str) -> str:
    """Return the first sentence of a verdict's description, where it says more than the name."""
    if verdict == "Hang":
        return ": an operation does not end"
    found = getattr(errors, verdict, None)
    lines = (found.__doc__ or "").splitlines() if isinstance(found, type) and issubclass(found, errors.Verdict) else []
    return f": {lines[0][0].lower()}{lines[0][1:].rstrip('.')}" if lines else ""

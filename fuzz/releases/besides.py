"""Lines that a function has besides for a control experiment: they change nothing that the program must show."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from fuzz.releases.woven import HELD_AFTER, HELD_BEFORE, HELD_OVER, KEPT_VALUE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from fuzz.releases.woven import Emission

HOLD: Final = "(local.set $held (global.get $null))"
"""A reference from a global that is always null, which no compiler knows; so nothing enters the activations table."""
USE: Final = "(global.set $seen (ref.is_null (local.get $held)))"
"""Reads it, and is no call itself."""
STOPS: Final = ("(call ", "(table.", "(global.get $g", "(global.set $g", "(global.get $m", "(global.set $m", "(elem.", "(unreachable)")
"""What is a safepoint, or may be one: all but plain code is a call of the engine on some release."""
_SETS: Final = re.compile(r"( *)\(local\.set \$s(\d+)[ )]")
_KEPT: Final = re.compile(r"\(global\.set (\$kept\w+) ")


def around(emission: Emission, lines: Iterable[str]) -> tuple[list[str], list[str], list[str]]:
    """Return locals, and what stands before and after a function's lines, if it has a safepoint and anything is to be held over it.

    Args:
        emission: what is to be held.
        lines: of the function.
    """
    held, padding = emission.held, range(emission.padding)
    if not (held or padding) or not any(word in line for line in lines for word in STOPS):
        return [], [], []
    count = {HELD_OVER: 1, HELD_BEFORE: 2, HELD_AFTER: 0, "": 0}[held]
    both = [HOLD, USE] if held else []
    integers = [f"(local.set $p{number} (i32.add (global.get $seen) (i32.const {number + 1})))" for number in padding]
    used = [f"(global.set $seen (i32.xor (global.get $seen) (local.get $p{number})))" for number in padding]
    locals_ = [*(["(local $held externref)"] if held else []), *(f"(local $p{number} i32)" for number in padding)]
    return locals_, [*both[:count], *integers], [*used, *both[count:]]


def keeping(emission: Emission, lines: Sequence[str], parameters: int) -> Iterator[str]:
    """Return a function's lines, with a store to a global behind each that gives a slot a reference, and at the beginning for parameters.

    Args:
        emission: what is to be stored.
        lines: of the function.
        parameters: slots that it is entered with.
    """
    if not emission.kept:
        yield from lines
        return
    for slot in range(parameters):
        yield _store(emission, slot)
    for line in lines:
        yield line
        if found := _SETS.match(line):
            yield found[1] + _store(emission, int(found[2]))


def _store(emission: Emission, slot: int) -> str:
    """Return a store to a global that the function alone has: the name gets its own in it (`owned`)."""
    value = f"(local.get $s{slot})" if emission.kept == KEPT_VALUE else "(ref.null extern)"
    return f"(global.set $kept{slot} {value})"


def owned(body: str, name: str) -> str:
    """Return a function's text with globals of its own.

    >>> owned("(global.set $kept0 (local.get $s0))", "f3")
    '(global.set $kept_f3_0 (local.get $s0))'
    """
    return _KEPT.sub(lambda found: f"(global.set $kept_{name}_{found[1].removeprefix('$kept')} ", body)


def globals_(functions: Sequence[str]) -> list[str]:
    """Return the globals that such lines take.

    Args:
        functions: texts of the module's functions.
    """
    text = "\n".join(functions)
    found = [f"(global {name} (mut externref) (ref.null extern))" for name in sorted(set(_KEPT.findall(text)))]
    if "(global.get $null)" in text:
        found.append("(global $null (mut externref) (ref.null extern))")
    if "(global.set $seen " in text:
        found.append("(global $seen (mut i32) (i32.const 0))")
    return found

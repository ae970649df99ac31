"""Which parameters a function has in the compiled reading: parts of the world for objects, and plain values as they are."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Final

from fuzz.compiled.world import REPORTS

if TYPE_CHECKING:
    from collections.abc import Callable

_W: Final = ("state", "limits", "shape", "host", "config", "chooser", "bounds")
_TAGS: Final = {"mem": "mem", "memory": "mem", "w": "w", "driver": "driver"} | {name: name for name in _W}
LOWERED: Final = {"mem": ("mem",), "w": ("w",), "driver": ("mem", "w"), "runtime": ("mem", "w")} | dict.fromkeys(_W, ("w",))
_CLASSES: Final = {"Driver": "driver", "Runtime": "runtime"}


def params_of(function: Callable[..., Any]) -> list[str]:
    """Return the names of a function's parameters, in order."""
    return list(inspect.signature(function).parameters)


def tag_of(function: Callable[..., Any], param: str) -> str | None:
    """Return what part of the world a parameter stands for, or None for a plain value."""
    if param == "self":
        return _CLASSES.get(function.__qualname__.partition(".")[0])
    return _TAGS.get(param.lstrip("_"))


def lowered(function: Callable[..., Any]) -> list[str]:
    """Return the parameters of a function in the compiled reading."""
    found: list[str] = []
    for param in params_of(function):
        tag = tag_of(function, param)
        if tag is None and function.__name__ in REPORTS:
            continue
        found += [part for part in (LOWERED[tag] if tag is not None else (param,)) if part not in found]
    return found

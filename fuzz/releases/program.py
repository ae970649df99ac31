"""A program is plain data: one Wasm module in text form and a host script, the only thing that crosses to an engine.

It is one JSON object a line. Values are numbers; each is a fresh host object behind one `externref`. The host keeps *handles* in a
table by number: `new`, and whatever the engine hands over (arguments of imports, results of calls, what is read), puts the number into the
table; `drop` takes it out, and is nothing if it is not there. Passing a value lends it, unless it is listed as *moved*:
then its handle leaves the table with the transfer, so that the engine alone owns it while it runs.

Wasm imports, all optional: functions `("host", "hP_R")` of P references with R results; `("env", "g")`, an immutable global,
`("env", "m")`, a mutable one, `("env", "t")`, a table, and functions `("env", "fN")`. The type of each is the one that the module asks for.

| action | meaning |
| --- | --- |
| `["new", v]`, `["drop", v]` | make a value; let go of its handle |
| `["instantiate", i, {name: source}]` | makes instance i; the sources of its imports are below |
| `["call", i, export, args, moved]` | call; the results are kept; an argument may also be `["i32", n]` or `["i64", n]` |
| `["global_get", i, export]`, `["global_set", i, export, v]` | |
| `["table_get", i, export, index]`, `["table_set", i, export, index, v]` | |
| `["table_grow", i, export, delta, v]`, `["table_size", i, export]` | |
| `["gc"]`, `["drop_instance", i]`, `["drop_store"]` | |
| `["return", results, moved]`, `["raise"]` | last in an import's list: its results; a trap |

Sources: `["global", j, export]`, `["table", j, export]`, `["function", j, export]`; `["value", v or null]`, a new global;
`["fresh", size, v or null]`, a new table; `["host", "hP_R"]`, a function of the host like those that are imported from it.

Places: `["script", n]`, `["import", k, n]`, `["destructor", v, n]`: the n-th action of a list. The arguments of import call k arrive at
`["import", k, -1]`. Events, in the order in which they happen:

| event | meaning |
| --- | --- |
| `["at", place]` | an action is about to be done, or an import call has arrived |
| `["got", place, [v, null or "?..."]]` | what the engine handed over; a word is an identity that the host does not know |
| `["size", place, n]` | a table's size, or the one before it grew; -1 if it did not grow |
| `["destroyed", v, place]` | the engine has let go of its last reference and so has the host |
| `["trap", place, message]`, `["error", place, message]` | a call trapped; the host's interface refused |
| `["skipped", place]` | the interface does not allow this action here |
| `["end"]` | everything is done, the store is gone |
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any, Final

Action = list[Any]
Place = tuple[str | int, ...]

ENTRY: Final = -1
"""Position of an import call's arrival, before its first action."""
BYTES_MAX: Final = 1 << 22
"""Longer programs are refused."""
_VALUE: Final = "value"
_OPTIONAL: Final = "value or null"
_INDEX: Final = "number"
_EXPORT: Final = "export"
_OPTIONALS: Final = "values or nulls"
_ARGUMENTS: Final = "arguments"
_VALUES: Final = "values"
_SOURCES: Final = "import sources"
_FORMS: Final[dict[str, tuple[str, ...]]] = {
    "new": (_VALUE,),
    "drop": (_VALUE,),
    "instantiate": (_INDEX, _SOURCES),
    "call": (_INDEX, _EXPORT, _ARGUMENTS, _VALUES),
    "global_get": (_INDEX, _EXPORT),
    "global_set": (_INDEX, _EXPORT, _OPTIONAL),
    "table_get": (_INDEX, _EXPORT, _INDEX),
    "table_set": (_INDEX, _EXPORT, _INDEX, _OPTIONAL),
    "table_grow": (_INDEX, _EXPORT, _INDEX, _OPTIONAL),
    "table_size": (_INDEX, _EXPORT),
    "gc": (),
    "drop_instance": (_INDEX,),
    "drop_store": (),
    "return": (_OPTIONALS, _VALUES),
    "raise": (),
}
_LAST_ONLY: Final = frozenset({"return", "raise"})
_NAME: Final = re.compile(r"[A-Za-z0-9_]{1,40}")
_SOURCE_FORMS: Final = {
    "global": (_INDEX, _EXPORT),
    "table": (_INDEX, _EXPORT),
    "function": (_INDEX, _EXPORT),
    "value": (_OPTIONAL,),
    "fresh": (_INDEX, _OPTIONAL),
    "host": (_EXPORT,),
}


class ProgramError(ValueError):
    """The data is no program. The message is one line and names the place."""


@dataclass(frozen=True, slots=True)
class Program:
    """What a host and a module do together.

    Args:
        id: number within its batch.
        wat: text of the module.
        values: all value numbers are below it.
        script: the host's actions.
        imports: actions of the k-th import call of the whole run; beyond the end an import does nothing and returns nulls.
        destructors: actions of a value's destructor.
    """

    id: int
    wat: str
    values: int
    script: tuple[Action, ...]
    imports: tuple[tuple[Action, ...], ...] = ()
    destructors: dict[int, tuple[Action, ...]] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return it as the JSON object of the runner's input."""
        return {
            "id": self.id,
            "wat": self.wat,
            "values": self.values,
            "script": list(self.script),
            "imports": [list(actions) for actions in self.imports],
            "destructors": {str(value): list(actions) for value, actions in self.destructors.items()},
        }

    def line(self) -> str:
        """Return it as one line, without the newline."""
        return json.dumps(self.as_json(), separators=(",", ":"))


def from_json(data: object) -> Program:
    """Read a program.

    Raises:
        ProgramError: something is missing, of a wrong kind, or out of range.
    """
    if not isinstance(data, dict):
        raise ProgramError("a program is a JSON object")
    missing = {"wat", "values", "script"} - set(data)
    if missing:
        raise ProgramError(f"a program needs {', '.join(sorted(missing))}")
    values, wat = data["values"], data["wat"]
    if not _is_index(values) or not isinstance(wat, str) or len(wat) > BYTES_MAX:
        raise ProgramError("values is a number and wat is text")
    imports, destructors = data.get("imports", []), data.get("destructors", {})
    if not isinstance(imports, list) or not isinstance(destructors, dict):
        raise ProgramError("imports is a list and destructors an object")
    acting: dict[int, tuple[Action, ...]] = {}
    for key, actions in destructors.items():
        if not (isinstance(key, str) and key.isdecimal() and len(key) < 10 and int(key) < values):
            raise ProgramError(f"destructors: {key!r} is no value")
        acting[int(key)] = _actions(actions, f"destructor {key}", values, may_return=False)
    number = data.get("id", 0)
    if not _is_index(number):
        raise ProgramError("id is a number")
    return Program(
        number,
        wat,
        values,
        _actions(data["script"], "script", values, may_return=False),
        tuple(_actions(actions, f"import {k}", values, may_return=True) for k, actions in enumerate(imports)),
        acting,
    )


def parse(text: str) -> Program:
    """Read a program from its JSON text.

    Raises:
        ProgramError: it is none.
    """
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ProgramError(f"not JSON: {error}") from None
    return from_json(data)


def _actions(data: object, where: str, values: int, *, may_return: bool) -> tuple[Action, ...]:
    if not isinstance(data, list):
        raise ProgramError(f"{where} is a list of actions")
    for number, action in enumerate(data):
        place = f"{where}, action {number}"
        if not isinstance(action, list) or not action or not isinstance(action[0], str) or action[0] not in _FORMS:
            raise ProgramError(f"{place}: no such action")
        name = action[0]
        form = _FORMS[name]
        # What is moved may be left out.
        least = len(form) - (form[-1:] == (_VALUES,))
        if not least <= len(action) - 1 <= len(form):
            raise ProgramError(f"{place}: {name} has {len(form)} operands")
        if name in _LAST_ONLY and not (may_return and number == len(data) - 1):
            raise ProgramError(f"{place}: {name} stands last in an import's list, or nowhere")
        for what, operand in zip(form, action[1:], strict=False):
            if not _fits(what, operand, values):
                raise ProgramError(f"{place}: {str(operand)[:40]} is no {what}")
    return tuple(data)


def _is_index(data: object) -> bool:
    return isinstance(data, int) and not isinstance(data, bool) and 0 <= data < 1 << 24


def _is_integer(data: object) -> bool:
    return isinstance(data, list) and len(data) == 2 and data[0] in {"i32", "i64"} and type(data[1]) is int and abs(data[1]) < 1 << 31


def _fits(what: str, operand: object, values: int) -> bool:
    if what == _INDEX:
        return _is_index(operand)
    if what == _EXPORT:
        return isinstance(operand, str) and _NAME.fullmatch(operand) is not None
    if what in {_VALUE, _OPTIONAL}:
        return (operand is None and what == _OPTIONAL) or (_is_index(operand) and isinstance(operand, int) and operand < values)
    if what == _ARGUMENTS:
        return isinstance(operand, list) and all(_is_integer(item) or _fits(_OPTIONAL, item, values) for item in operand)
    if what in {_VALUES, _OPTIONALS}:
        one = _VALUE if what == _VALUES else _OPTIONAL
        return isinstance(operand, list) and all(_fits(one, item, values) for item in operand)
    return isinstance(operand, dict) and all(_is_source(name, source, values) for name, source in operand.items())


def _is_source(name: object, source: object, values: int) -> bool:
    if not isinstance(name, str) or _NAME.fullmatch(name) is None or not isinstance(source, list) or not source:
        return False
    form = _SOURCE_FORMS.get(source[0]) if isinstance(source[0], str) else None
    return form is not None and len(form) == len(source) - 1 and all(map(_fits, form, source[1:], [values] * len(form)))

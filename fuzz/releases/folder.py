"""A finding on a release is a folder with which a person can rerun it without this project."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from typing import TYPE_CHECKING, Any, Final

from fuzz.releases import program as seam
from fuzz.releases import recipe
from fuzz.releases.build import build
from fuzz.releases.oracle import Verdict, words
from fuzz.releases.repro import reproduction

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fuzz.releases.advisories import Sighting
    from fuzz.releases.build import Built
    from fuzz.releases.examined import Examination
    from fuzz.releases.program import Action

FORMAT: Final = "drc program v1"
DIGEST_DIGITS: Final = 8
ACTIONS_TOLD_MAX: Final = 60
_INSTRUCTION: Final = re.compile(r"\((?:\w+\.\w+|call|drop|block|loop|if|br|br_if|br_table|select|unreachable)\b")
_WORDS: Final = {
    "new": "makes value {0}",
    "drop": "lets go of value {0}",
    "instantiate": "makes instance {0}{1}",
    "call": "calls {1} of instance {0} with {2}{3}",
    "global_get": "reads {1} of instance {0}",
    "global_set": "stores {2} to {1} of instance {0}",
    "table_get": "reads element {2} of {1} of instance {0}",
    "table_set": "stores {3} to element {2} of {1} of instance {0}",
    "table_grow": "grows {1} of instance {0} by {2}, new elements hold {3}",
    "table_size": "asks for the size of {1} of instance {0}",
    "gc": "collects",
    "drop_instance": "lets go of instance {0}",
    "drop_store": "lets go of the store",
    "return": "returns {0}{1}",
    "raise": "traps",
}


def tell_action(action: Action) -> str:
    """Say an action.

    >>> tell_action(["call", 0, "f1", [2, None], [2]])
    'calls f1 of instance 0 with (value 2, null), giving up value 2'
    """
    operands = list(action[1:])
    told = [_operand(operand) for operand in operands]
    if action[0] in {"call", "return"}:
        position = 3 if action[0] == "call" else 1
        moved = operands[position] if len(operands) > position else []
        told[position:] = [f", giving up {' and '.join(f'value {value}' for value in moved)}" if moved else ""]
    elif action[0] == "instantiate":
        told[1] = f" with {', '.join(f'{name} = {_source(source)}' for name, source in operands[1].items())}" if operands[1] else ""
    elif action[0] in {"new", "drop", "drop_instance"}:
        told = [str(operands[0])]
    if action[0] in {"global_set", "table_set", "table_grow"}:
        told[-1] = _value(operands[-1])
    return _WORDS[action[0]].format(*told)


def _value(value: int | None) -> str:
    return "null" if value is None else f"value {value}"


def _operand(operand: Any) -> str:  # noqa: ANN401  # whatever JSON has
    if isinstance(operand, list):
        return f"({', '.join(str(item) if isinstance(item, list) else _value(item) for item in operand)})"
    return str(operand)


def _source(source: list[Any]) -> str:
    kind, *rest = source
    if kind == "value":
        return f"a global that holds {_value(rest[0])}"
    if kind == "fresh":
        return f"a table of {rest[0]} that holds {_value(rest[1])}"
    if kind == "host":
        return "a function of the host that is never called"
    return f"{rest[1]} of instance {rest[0]}"


def script_lines(program: seam.Program) -> Iterator[str]:
    """Tell what the host does, a line for each action."""
    yield "The host:"
    for number, action in enumerate(program.script):
        yield f"  {number:3}  {tell_action(action)}"
    for call, actions in enumerate(program.imports):
        yield f"Import call {call}:" if actions else f"Import call {call}: nothing"
        for number, action in enumerate(actions):
            yield f"  {number:3}  {tell_action(action)}"
    for value, actions in sorted(program.destructors.items()):
        yield f"The destructor of value {value}:"
        for number, action in enumerate(actions):
            yield f"  {number:3}  {tell_action(action)}"


def instructions(wat: str) -> int:
    """Return how many instructions the functions of a module have; the module has its parts on lines of their own.

    >>> parts = ["(module", "(global $g externref (ref.null extern))", "(func $f", "(drop (global.get $g))", "(call $h)))"]
    >>> instructions(chr(10).join(parts))
    3
    """
    lines = [line.strip() for line in wat.splitlines()]
    first = next((number for number, line in enumerate(lines) if line.startswith("(func ")), len(lines))
    return sum(len(_INSTRUCTION.findall(line)) for line in lines[first:])


def story(sighting: Sighting, releases: int) -> list[str]:
    """Tell a finding in a few lines.

    Args:
        sighting: what to tell.
        releases: on how many it was run.
    """
    found, known, examination = sighting.found, sighting.known(), sighting.examination
    operations = f"{len(found.built.recipe.items)} of {found.operations} operations"
    lines = [
        f"{found.verdict.kind} on wasmtime {found.release}",
        f"  what is wrong: {found.verdict.text}",
        f"  found by:      module {found.number}, {operations}, {instructions(found.built.program.wat)} Wasm instructions",
        f"  affected:      {sighting.range()}" + (f" (of {releases} releases)" if releases > 1 else ""),
    ]
    if examination is not None and examination.causes:
        lines.append(f"  is:            {examination.told()}")
    else:
        # What controls were made for and did not explain is not guessed at.
        if known is not None and not (examination is not None and examination.seen and known.control):
            lines.append(f"  looks like:    {known.name}: {known.what}")
        if examination is not None:
            lines.append(f"  examined:      {examination.told()}")
    return lines


def controls_text(examination: Examination) -> str:
    """Return what control experiments said: the conclusion, and a line for each variant with its count."""
    return "\n".join([examination.told(), "", *examination.table(), ""])


def name_of(sighting: Sighting) -> str:
    """Return the name of the folder: it follows from the program, so that the same finding made twice is one folder."""
    text = sighting.found.built.program.line()
    digest = hashlib.sha256(text.encode()).hexdigest()[:DIGEST_DIGITS]
    return f"{sighting.found.verdict.kind.replace(' ', '-')}-{sighting.found.release}-{digest}"


def files(sighting: Sighting, releases: int) -> dict[str, str]:
    """Return the files of a finding's folder, by name."""
    found = sighting.found
    program = found.built.program
    told = "\n".join(story(sighting, releases))
    data = {
        "format": FORMAT,
        "release": found.release,
        "verdict": found.verdict.kind,
        "text": found.verdict.text,
        "shows": sighting.shows,
        "recipe": found.built.recipe.as_json(),
        "program": program.as_json(),
    }
    host = "\n".join(script_lines(program))
    places = [f"value {value} is owned last at {words(found.built.expected.places[number])}" for value, number in _owned(found.built)]
    texts = {} if sighting.examination is None else {"controls.txt": controls_text(sighting.examination)}
    return texts | {
        "program.json": json.dumps(data, indent=1) + "\n",
        "module.wat": program.wat,
        "script.txt": host + "\n",
        "repro.py": _repro(sighting, told),
        "story.txt": "\n".join([told, "", host, "", *places]) + "\n",
        "stderr.txt": found.stderr,
    }


def _repro(sighting: Sighting, told: str) -> str:
    """The finding as one Python file that knows what has to be observed."""
    found, expected = sighting.found, sighting.found.built.expected
    return reproduction(
        found.built.program.as_json(),
        found.release,
        found.verdict.kind,
        story=told,
        expected=list(expected.got.items()),
        sizes=list(expected.sizes.items()),
        traps=[place for place in expected.places if place in expected.traps],
        owned=[(value, expected.places[number]) for value, number in enumerate(expected.needed) if number >= 0],
        dead=[(expected.places[number], values) for number, values in expected.due.items()],
    )


def _owned(built: Built) -> list[tuple[int, int]]:
    return [(value, number) for value, number in enumerate(built.expected.needed) if number >= 0][:ACTIONS_TOLD_MAX]


def write(sighting: Sighting, parent: Path, releases: int) -> Path:
    """Write a finding's folder, whole or not at all; return its path. A folder of that name is left as it is.

    Raises:
        OSError: it could not be written, and nothing is left behind.
    """
    folder = parent / name_of(sighting)
    if folder.is_dir():
        return folder
    parent.mkdir(parents=True, exist_ok=True)
    draft = tempfile.mkdtemp(prefix=".draft-", dir=parent)
    try:
        os.chmod(draft, 0o755)  # noqa: PTH101, S103  # a finding is for everyone to read, and mkdtemp hides it
        for name, text in files(sighting, releases).items():
            with open(os.path.join(draft, name), "w", encoding="utf-8", newline="\n") as file:  # noqa: PTH118, PTH123
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
        os.rename(draft, folder)  # noqa: PTH104
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        if folder.is_dir():
            # Another campaign was faster with the same finding.
            return folder
        raise
    return folder


def read(text: str) -> Built:
    """Read a `program.json` of a finding, and weave its recipe again.

    Raises:
        ValueError: it is none, or its program is not the one that its recipe makes.
    """
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON: {error}") from None
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise ValueError(f"not a program: it must say '{FORMAT}'")
    program = seam.from_json(data.get("program"))
    built = build(recipe.from_json(data.get("recipe")), program.id)
    if built.program.line() != program.line():
        raise ValueError("its recipe does not make its program; was it changed by hand, or made by another version?")
    return built


def verdict_told(data: bytes) -> Verdict | None:
    """Return the verdict that a `program.json` tells of, or None if it tells of none, or is none."""
    try:
        told = json.loads(data)
    except (ValueError, RecursionError):
        return None
    if not isinstance(told, dict) or not isinstance(told.get("verdict"), str) or not isinstance(told.get("text"), str):
        return None
    return Verdict(told["verdict"], told["text"])

"""A trace is text: one operation a line, a versioned first line, bars for people only; reading it is strict.

```
# drc trace v1 scope=reentrancy chunk=2 objects=3 ...
new layout=0 owns=[]
gc
| gc
| end
```
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from model.limits import SCOPES, Limits, with_numbers
from model.ops import BY_KIND, BY_TEXT, NULL, Domain, Row

VERSION: Final = 1
SIZE_MAX_BYTES: Final = 1 << 20
"""Longer files are refused: a trace that nobody can read is no trace."""
_HEADER: Final = re.compile(r"# drc trace v([0-9]{1,9})((?: [a-z_]+=\S+)*)\s*")
_NUMBER: Final = re.compile(r"[0-9]{1,9}")
_OPERAND: Final = re.compile(r"([a-z_]+)=(\[[^\]]*\]|\S+)")


class TraceError(Exception):
    """The text is no trace. The message begins with the line number."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(f"line {line}: {reason}")


@dataclass(frozen=True, slots=True)
class Trace:
    """Limits and the operations in the order in which they started."""

    limits: Limits
    rows: tuple[Row, ...]


def format_row(row: Row, limits: Limits) -> str:
    """Return the text of one operation.

    >>> from model.ops import Kind
    >>> format_row((Kind.CALL_WASM, 0, 1, 3, NULL), SCOPES["calls"])
    'call_wasm instance=0 function=1 args=[3 null]'
    """
    spec = BY_KIND[row[0]]
    words = [spec.text]
    for (name, domain), value in zip(spec.operands, row[1:], strict=False):
        words.append(f"{name}={_value(value, domain, limits)}")
    if spec.items is not None:
        items = " ".join(_value(value, spec.items[1], limits) for value in row[1 + len(spec.operands) :])
        words.append(f"{spec.items[0]}=[{items}]")
    return " ".join(words)


def _value(value: int, domain: Domain, limits: Limits) -> str:
    if value == NULL:
        return "null"
    if domain == Domain.INITIAL and value >= limits.objects:
        return f"import:{value - limits.objects}"
    return str(value)


def header(limits: Limits) -> str:
    """Return the first line: the scope's name, and all bounds, so that a trace outlives changes of the presets."""
    return f"# drc trace v{VERSION} scope={limits.scope} " + " ".join(f"{k}={v}" for k, v in limits.numbers().items())


def format_trace(trace: Trace, depths: tuple[int, ...] | None = None, notes: tuple[str, ...] = ()) -> str:
    """Return the text of a trace.

    Args:
        depths: for each row, how many destructors are running around it; drawn as bars, ignored by `parse`.
        notes: comment lines after the header.
    """
    lines = [header(trace.limits), *(f"# {note}" for note in notes)]
    for index, row in enumerate(trace.rows):
        lines.append("| " * (depths[index] if depths else 0) + format_row(row, trace.limits))
    return "\n".join(lines) + "\n"


def parse(text: str) -> Trace:
    """Read a trace.

    Raises:
        TraceError: with the number of the line and the reason.
    """
    lines = text.removesuffix("\n").split("\n")
    if not text:
        raise TraceError(1, "empty: a trace begins with '# drc trace v1 ...'")
    limits = _parse_header(lines[0])
    if not text.endswith("\n"):
        raise TraceError(len(lines), "truncated: the last line does not end")
    rows = []
    for number, line in enumerate(lines[1:], start=2):
        words = line.lstrip("| \t").strip()
        if words and not words.startswith("#"):
            rows.append(parse_row(words, limits, number))
    return Trace(limits, tuple(rows))


def _parse_header(line: str) -> Limits:
    match = _HEADER.fullmatch(line)
    if match is None:
        raise TraceError(1, "not a trace: it must begin with '# drc trace v1 ...'")
    if int(match[1]) != VERSION:
        raise TraceError(1, f"trace version {match[1]}, but this program reads version {VERSION}")
    pairs = [word.split("=", 1) for word in match[2].split()]
    values = dict(pairs)
    if len(values) != len(pairs):
        raise TraceError(1, "a bound is given twice")
    scope = values.pop("scope", "everything")
    if scope not in SCOPES:
        raise TraceError(1, f"unknown scope {scope!r} (there are: {', '.join(SCOPES)})")
    for name, value in values.items():
        if not _NUMBER.fullmatch(value):
            raise TraceError(1, f"{name}={value[:40]} is not a small number")
    try:
        return with_numbers(SCOPES[scope], {name: int(value) for name, value in values.items()})
    except ValueError as error:
        raise TraceError(1, str(error)) from None


def parse_row(words: str, limits: Limits, line: int) -> Row:
    """Read one operation.

    Raises:
        TraceError: unknown operation or operand, missing operand, malformed value.
    """
    text, _, rest = words.partition(" ")
    kind = BY_TEXT.get(text)
    if kind is None:
        raise TraceError(line, f"unknown operation {text[:40]!r}")
    spec = BY_KIND[kind]
    given: dict[str, str] = {}
    position = 0
    rest = rest.strip()
    while position < len(rest):
        match = _OPERAND.match(rest, position)
        if match is None:
            raise TraceError(line, f"cannot read {rest[position : position + 40]!r}: operands are name=value")
        if match[1] in given:
            raise TraceError(line, f"{match[1]} is given twice")
        given[match[1]] = match[2]
        position = match.end()
        while position < len(rest) and rest[position] == " ":
            position += 1
    row: list[int] = [kind]
    for name, domain in spec.operands:
        if name not in given:
            raise TraceError(line, f"{text} lacks {name}")
        row.append(_parse_value(given.pop(name), domain, limits, line))
    if spec.items is not None:
        name, domain = spec.items
        value = given.pop(name, "[]")
        if not (value.startswith("[") and value.endswith("]")):
            raise TraceError(line, f"{name} is a list: [0 1 null]")
        row += [_parse_value(word, domain, limits, line) for word in value[1:-1].replace(",", " ").split()]
    if given:
        raise TraceError(line, f"{text} has no operand {next(iter(given))!r}")
    return tuple(row)


def _parse_value(word: str, domain: Domain, limits: Limits, line: int) -> int:
    if word == "null":
        return NULL
    offset = 0
    if domain == Domain.INITIAL and word.startswith("import:"):
        offset, word = limits.objects, word.removeprefix("import:")
    if not (word.isascii() and word.isdigit()) or len(word) > 9:  # no bound has more digits
        raise TraceError(line, f"{word[:40]!r} is not a small number or null")
    return offset + int(word)


def parse_bytes(data: bytes) -> Trace:
    """Read a trace from a file's bytes.

    Raises:
        TraceError: too large, not text, or not a trace.
    """
    if len(data) > SIZE_MAX_BYTES:
        raise TraceError(1, f"{len(data)} bytes; a trace has at most {SIZE_MAX_BYTES}")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise TraceError(data[: error.start].count(b"\n") + 1, "not text") from None
    return parse(text)

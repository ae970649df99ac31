"""Small texts as C and as Python, for tests that compare the two word for word."""

from __future__ import annotations

import ast
import ctypes
import subprocess
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fuzz.compiled.emission import Emission
from fuzz.compiled.expressions import prototype
from fuzz.compiled.inference import Inference
from fuzz.compiled.library import compiler
from fuzz.compiled.package import _HEAD

TABLES = {"TABLE": (3, 1, 4, 1, 5)}
WORDS = 64
COMPARED = 16
"""How many words of either array are looked at."""
PAIRS = [(x, y) for x in (-9, -1, 0, 1, 2, 5, 6, 7, 8, 100, 1 << 33, -(1 << 50)) for y in (-3, 0, 1, 4, 7, 8, 1 << 20)]
DONE, RAISED, ENDED = range(3)
"""How a call ends: with a value, an exception, or the run."""
ENTRY = """
word try_{name}(word x, word y, word *how)
{{
    word found = 0;
    raised = 0;
    landings = 1;
    if (_setjmp(landing) != 0) {{ *how = 2; return 0; }}
    found = {name}(x, y);
    *how = raised;
    return raised ? 0 : found;
}}"""


class Panicked(Exception):
    """An exception of the language."""


class CompiledVerdict(BaseException):
    """What ends a run: a boundary alone catches it."""


class Wrapping:
    """Words that wrap where they are kept."""

    def __init__(self, words: memoryview[int]) -> None:
        self.words = words

    def __len__(self) -> int:
        return len(self.words)

    def __getitem__(self, index: int | slice) -> Any:
        return Wrapping(self.words[index]) if isinstance(index, slice) else self.words[index]

    def __setitem__(self, index: int, word: int) -> None:
        self.words[index] = wrapped(word)


def wrapped(word: int) -> int:
    """The signed word with the lowest 64 bits of a number."""
    return ctypes.c_int64(word & (1 << 64) - 1).value


def definitions(text: str) -> dict[str, ast.FunctionDef]:
    """The functions of a text, by name."""
    return {node.name: node for node in ast.parse(textwrap.dedent(text)).body if isinstance(node, ast.FunctionDef)}


def emitted(
    text: str,
    names: tuple[str, ...] = (),
    *,
    boundaries: tuple[str, ...] = (),
    trusted: tuple[str, ...] = (),
    intrinsics: Mapping[str, str] | None = None,
) -> str:
    """The C of a text, with an entry for some of its functions, each of which takes two words besides the two arrays."""
    known = Inference(definitions(text))
    plain = [name for name, function in known.functions.items() if not function.generator]
    parts = [_HEAD]
    parts += [f"static const word {name}[{len(words)}] = {{{', '.join(map(str, words))}}};" for name, words in TABLES.items()]
    parts += [f"{prototype(name, known.functions[name])};" for name in plain]
    parts += [
        Emission(known, name, trusted=name in trusted, boundary=name in boundaries, tables=TABLES, intrinsics=dict(intrinsics or {})).text()
        for name in plain
    ]
    return "\n\n".join([*parts, *(ENTRY.format(name=name) for name in names)])


class Emitted:
    """A text that was compiled, and the same text as Python.

    Args:
        folder: where the compiler works.
        text: functions; a generator named `bits` yields the numbers in a mask.
        names, choices: see `emitted`.
    """

    def __init__(self, folder: Path, text: str, names: tuple[str, ...], **choices: Any) -> None:
        (folder / "text.c").write_text(emitted(text, names, **choices), encoding="utf-8")
        command = compiler()
        assert command is not None, "there is no C compiler"
        flags = ("-O1", "-fwrapv", "-fPIC", "-shared", "-std=gnu11", "-w")
        subprocess.run([command, *flags, "-o", str(folder / "text.so"), str(folder / "text.c")], check=True, timeout=120)
        self.library = ctypes.CDLL(str(folder / "text.so"))
        for size in ("mem_words", "w_words"):
            ctypes.c_int64.in_dll(self.library, size).value = WORDS
        self.python = _python(text, choices.get("boundaries", ()))

    def array(self, name: str, count: int = WORDS) -> Any:
        """One of the two arrays."""
        return (ctypes.c_int64 * count).in_dll(self.library, name)

    def call(self, name: str, x: int, y: int) -> tuple[int, int]:
        """Call a function as C; return its value and how it ended."""
        function = getattr(self.library, f"try_{name}")
        function.argtypes = [ctypes.c_int64, ctypes.c_int64, ctypes.POINTER(ctypes.c_int64)]
        function.restype = ctypes.c_int64
        how = ctypes.c_int64(0)
        found = function(x, y, ctypes.byref(how))
        return found, how.value

    def compare(self, name: str) -> set[int]:
        """Compare the two readings for many pairs of words; return how the calls ended."""
        ends = set()
        for x, y in PAIRS:
            start = [number * number % 11 for number in range(WORDS)]
            for place in ("mem", "w"):
                self.array(place)[:] = start
            found = self.call(name, x, y)
            mem, w = (Wrapping(memoryview((ctypes.c_int64 * WORDS)(*start)).cast("B").cast("q")) for _ in range(2))
            try:
                expected = (wrapped(self.python[name](mem, w, x, y)), DONE)
            except Panicked:
                expected = (0, RAISED)
            except CompiledVerdict:
                expected = (0, ENDED)
            assert found == expected, (name, x, y)
            assert list(self.array("w")[:COMPARED]) == w.words[:COMPARED].tolist(), (name, x, y)
            assert list(self.array("mem")[:COMPARED]) == mem.words[:COMPARED].tolist(), (name, x, y)
            ends.add(found[1])
        return ends


def _python(text: str, boundaries: tuple[str, ...]) -> dict[str, Callable[..., Any]]:
    space: dict[str, Any] = {"Panicked": Panicked, "CompiledVerdict": CompiledVerdict, **TABLES}
    space["bits"] = lambda mask: [number for number in range(mask.bit_length()) if mask >> number & 1]
    found = definitions(text)
    found.pop("bits", None)
    for name in boundaries:
        for node in ast.walk(found[name]):
            if isinstance(node, ast.ExceptHandler):
                node.type = ast.copy_location(ast.Name("BaseException", ast.Load()), node)
    exec(compile(ast.Module(list(found.values()), []), "text", "exec"), space)  # noqa: S102  # the text of a test
    return space

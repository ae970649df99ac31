"""The engines of the matrix by name. This file imports nothing of `impl`, whose import may be what a mutant breaks."""

from __future__ import annotations

from typing import Final

ENGINES: Final = {
    "random": "drc fuzz --engine random, scope everything",
    "hypothesis": "drc fuzz --engine hypothesis, scope everything",
    "atheris": "drc fuzz --engine atheris, scope everything",
    "check": "drc check, all scopes in turns until one is violated",
    "prove": "drc prove",
    "upstream": "the random engine's programs without a model: at the end as many values destroyed as created, and no crash",
    "sanitised": "the same on a memory that names wrong accesses, as an address sanitiser does",
}
"""In the order of the matrix."""
COUNTED: Final = frozenset({"random", "hypothesis", "atheris", "check", "prove"})
"""Those of this project. The other two stand for what upstream's own fuzzing can see."""
REPLAYING: Final = frozenset({"upstream", "sanitised"})
"""They replay recorded programs."""
MEMORY_BYTES_MAX: Final = 4 << 30
"""Of a process that runs a mutant; the usual one has a few hundred MB."""

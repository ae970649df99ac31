"""A small state graph can be looked at: every state in the model's words, every step as the operations that it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final, Protocol

STATES_MAX: Final = 5000
"""Nobody looks at a larger graph, and it would not fit on a page of any size."""
SUFFIXES: Final = (".dot", ".json")


class TooLarge(Exception):
    """The graph has more states than anybody can look at."""

    def __str__(self) -> str:
        return f"the graph has more than {STATES_MAX:,} states: too large to be dumped (--max-depth cuts it)"


class Drawn(Protocol):
    """A system that can say in words where it is and how it came there."""

    def described(self) -> list[str]:
        """Say the state that the system is in, a line for each thing that is there."""

    def step_words(self) -> list[str]:
        """Say the last step, a line for each operation in it."""


class Graph:
    """Collects states and steps while they are searched; to be given to an explorer as `record`.

    Args:
        system: what is searched; asked for the words of states and steps.

    Attributes:
        states: for each state, by number, the lines that describe it.
        edges: for each pair of states with steps between them, those steps, each as the operations in the order in which they began.
    """

    def __init__(self, system: Drawn) -> None:
        self.system = system
        self.numbers: dict[bytes, int] = {}
        self.states: list[list[str]] = []
        self.edges: dict[tuple[int, int], list[list[str]]] = {}

    def record(self, source: int | None, key: bytes) -> None:
        """Note the state that the system is in now, and the last step unless `source`, the state that it began in, is None.

        Raises:
            TooLarge: there are too many states.
        """
        number = self.numbers.setdefault(key, len(self.numbers))
        if number == len(self.states):
            if number == STATES_MAX:
                raise TooLarge
            self.states.append(self.system.described())
        if source is not None:
            self.edges.setdefault((source, number), []).append(self.system.step_words())

    def write(self, path: Path) -> None:
        """Write the graph in the format that the name ends in.

        Raises:
            OSError: it could not be written.
        """
        path.write_text(self.as_json() if path.suffix == ".json" else self.as_dot(), encoding="utf-8")

    def as_json(self) -> str:
        """Return states by number, and edges as source, target and steps."""
        edges = [{"from": source, "to": target, "steps": steps} for (source, target), steps in self.edges.items()]
        return json.dumps({"states": self.states, "edges": edges}, indent=1) + "\n"

    def as_dot(self) -> str:
        """Return the graph for Graphviz: an edge shows its first step, and how many more there are."""
        lines = ["digraph states {", "  node [shape=box];"]
        lines += [f"  {number} [label={_quoted([str(number), *words])}];" for number, words in enumerate(self.states)]
        for (source, target), steps in self.edges.items():
            more = [f"and {len(steps) - 1} more"] if len(steps) > 1 else []
            lines.append(f"  {source} -> {target} [label={_quoted([*steps[0], *more])}];")
        return "\n".join([*lines, "}", ""])


def _quoted(lines: list[str]) -> str:
    return '"' + "\\l".join(line.replace("\\", "\\\\").replace('"', '\\"') for line in lines) + '\\l"'

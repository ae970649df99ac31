"""A world is the model alone, played by hand: the test says which values the implementation would destroy, and when."""

from __future__ import annotations

from dataclasses import dataclass, field

from model.books import destruction_begins, destruction_ends
from model.choose import impossible
from model.limits import LIVE, SCOPES, SEEN, Limits, with_numbers
from model.ops import Row
from model.properties import Sometimes
from model.state import State, initial
from model.step import begin, expects_panic, finish
from model.trace import parse_row
from model.words import bits


@dataclass
class World:
    """The model's state, and the operations under way with the results that they expect."""

    limits: Limits
    state: State
    under_way: list[tuple[Row, int]] = field(default_factory=list)

    def why_not(self, text: str) -> str | None:
        """Say why an operation is not possible."""
        return impossible(self.state, self.limits, parse_row(text, self.limits, 1))

    def begin(self, text: str) -> int:
        row = parse_row(text, self.limits, 1)
        reason = impossible(self.state, self.limits, row)
        if reason is not None:
            raise ValueError(f"{text}: {reason}")
        result = begin(self.state, self.limits, row)
        self.under_way.append((row, result))
        return result

    def end(self) -> int:
        """Finish the operation that began last; return how many calls were unwound."""
        row, result = self.under_way.pop()
        panicked = expects_panic(self.state, self.limits)
        return finish(self.state, self.limits, row, result, panicked=panicked)

    def do(self, text: str, *dies: int) -> int:
        """Do a whole operation in which these values die, and do nothing in their destructors."""
        result = self.begin(text)
        for name in dies:
            self.die(name)
        self.end()
        return result

    def play(self, text: str) -> None:
        """Do several operations in which nothing dies, one a line."""
        for line in text.strip().splitlines():
            self.do(line.strip())

    def die(self, name: int, *, panicked: bool = False) -> None:
        """Destroy a value whose destructor does nothing but perhaps panic."""
        acted = destruction_begins(self.state, self.limits, name)
        destruction_ends(self.state, self.limits, name, acted=acted, panicked=panicked)

    def alive(self) -> list[int]:
        return list(bits(self.state[LIVE]))

    def seen(self, what: Sometimes) -> bool:
        return bool(self.state[SEEN] >> what & 1)


def world(text: str = "", **numbers: int) -> World:
    """Make a world of small limits in which these operations have been done."""
    limits = with_numbers(SCOPES["everything"], {"chunk": 2, "instances": 2, "modules": 16, **numbers})
    made = World(limits, initial(limits))
    made.play(text)
    return made


INSTANCE = "instantiate module=0 initial=null segment=0 active=0\n"

"""A story is a small runtime over simple code, with a host that records what is destroyed and acts when told to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import pytest

from impl.activations_table import END, NEXT, OVER
from impl.errors import Panicked
from impl.hash_set import LENGTH
from impl.header import TABLE
from impl.runtime import Config, Runtime

if TYPE_CHECKING:
    from collections.abc import Callable

    from impl.runtime import Function

SLOTS = 3
CODE = 0x1000
CALLEE = 0x2000
STRIDE = 16


class Host:
    """Records what is destroyed; `during` holds what a value's destructor does."""

    def __init__(self) -> None:
        self.destroyed: list[int] = []
        self.during: dict[int, Callable[[], object]] = {}
        self.refuse = False

    def construct(self, value: int, vtable: int) -> None:
        if self.refuse:
            raise Panicked("constructor")

    def destroy(self, externref: int) -> None:
        self.destroyed.append(externref)
        action = self.during.pop(externref, None)
        if action is not None:
            action()

    def panic_in(self, externref: int) -> None:
        def panic() -> None:
            raise Panicked("destructor")

        self.during[externref] = panic


class Story:
    """A runtime with one instance, whose table has two elements."""

    def __init__(self, *, checked: bool = True, **changes: Any) -> None:
        shape: dict[str, Any] = {
            "chunk": 2,
            "layouts": ((16, 8, 1), (0, 8, 0), (64, 32, 2)),
            "instances": 2,
            "globals": 2,
            "table_max": 4,
            "segment": 2,
            "slots": SLOTS,
            "modules": ((self.function(CODE), self.function(CALLEE)),),
            "stack_words": 400,
            "heap_words": 1000,
        }
        self.host = Host()
        self.rt = Runtime(Config(**(shape | changes)), self.host, checked=checked)
        self.rt.instantiate(0, 0, 0, 0, 2, 0)

    @staticmethod
    def function(start: int, unmapped: frozenset[int] = frozenset({0})) -> Function:
        """A function with a safepoint for each set of live locals, in order; those in `unmapped` have no map."""
        count = 1 << SLOTS
        maps = tuple((STRIDE * live + 8, SLOTS + 1, live << 1) for live in range(count) if live not in unmapped)
        return (start, start + STRIDE * count, maps)

    @staticmethod
    def at(*live: int, start: int = CODE) -> int:
        """The pc of the safepoint at which exactly these locals are live."""
        return start + STRIDE * sum(1 << slot for slot in live) + 8

    @property
    def table(self) -> int:
        return self.rt.memory[TABLE]

    def filled(self) -> tuple[int, int]:
        """Slots used in the chunk, members of the set."""
        mem, table = self.rt.memory, self.table
        return mem[table + NEXT] - mem[table + END] + self.rt.config.chunk, mem[table + OVER + LENGTH]

    def pass_and_return(self, ref: int) -> None:
        """Move a reference to Wasm, which returns at once and leaves it in the table."""
        self.rt.call_wasm(0, CODE, (ref,))
        assert self.rt.return_to_host(()) == []

    def check(self, owners: dict[int, int], live: tuple[int, ...] = ()) -> None:
        self.rt.check(owners, live, nested=False)


class MakeStory(Protocol):
    def __call__(self, *, checked: bool = True, **changes: Any) -> Story: ...


@pytest.fixture(params=[True, False], ids=["checked", "raw"])
def story(request: pytest.FixtureRequest) -> Story:
    return Story(checked=request.param)


@pytest.fixture
def make_story() -> MakeStory:
    return Story

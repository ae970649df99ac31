"""Small worlds for tests: a runtime, its host, and a record of what the host holds and which locals are live."""

from __future__ import annotations

from collections.abc import Callable

from impl.config import Config
from impl.header import FRAME_POINTER, INSTANCES, TABLE
from impl.runtime import Runtime
from impl.stack import KIND, LINK, WASM

SLOTS = 3
# The one safepoint at which these worlds stop: every local is live there.
PC = 0x1010
ALL_LOCALS = 0b1110


def configuration(chunk: int = 4, quarantine: int = 0) -> Config:
    """Describe worlds that have something of everything."""
    return Config(
        chunk=chunk,
        layouts=((8, 8, 1), (0, 8, 0), (24, 64, 2)),
        instances=2,
        globals=1,
        table_max=5,
        segment=2,
        slots=SLOTS,
        modules=(
            ((0x1000, 0x1100, ((0x10, SLOTS + 1, ALL_LOCALS), (0x20, 1, 0))), (0x1100, 0x1180, ())),
            ((0x1180, 0x2000, ((1, 2, 0b10), (5, 2, 0b10))),),
            ((0x1170, 0x1800, ((0, 1, 1),)),),
        ),
        stack_words=300,
        heap_words=700,
        quarantine=quarantine,
        hash_seed=12345,
    )


class World:
    """A runtime with a record of what the host holds; its locals are all live, always."""

    def __init__(self, config: Config, *, checked: bool = True) -> None:
        self.rt = Runtime(config, self, checked=checked)
        self.mem = self.rt.memory
        self.words = self.rt.memory if isinstance(self.rt.memory, memoryview) else self.rt.memory.words
        self.owners: dict[int, int] = {}
        self.dying = 0
        self.in_destructor: Callable[[], None] | None = None

    def construct(self, value: int, vtable: int) -> None:
        """Leave the value's own words as they are."""

    def destroy(self, externref: int) -> None:
        """Note that the object dies, and let it do what was asked for."""
        del self.owners[externref]
        self.dying = externref
        if self.in_destructor is not None:
            self.in_destructor()

    def new(self, layout: int, *fields: int) -> int:
        """Make an object that the host holds once."""
        externref = self.rt.new(layout, fields)
        self.owners[externref] = 1
        for ref in fields:
            if ref:
                self.owners[ref] -= 1
        return externref

    def moved(self, externref: int) -> int:
        """Note that the host gives a reference away."""
        if externref:
            self.owners[externref] -= 1
        return externref

    def live(self) -> list[int]:
        """List what is in any local."""
        found: list[int] = []
        fp = self.words[FRAME_POINTER]
        while fp:
            if self.words[fp + KIND] == WASM:
                found += self.words[fp - SLOTS : fp].tolist()
            fp = self.words[fp + LINK]
        return found

    def check(self, *, nested: bool = False) -> None:
        """Check the runtime."""
        self.rt.check(self.owners, self.live(), nested)

    def exchange(self, a: int, b: int, count: int) -> None:
        """Exchange `count` words at `a` and `b`."""
        for index in range(count):
            self.words[a + index], self.words[b + index] = self.words[b + index], self.words[a + index]

    @property
    def table(self) -> int:
        """Address of the activations table."""
        return self.words[TABLE]

    @property
    def instance(self) -> int:
        """Address of the first instance."""
        return self.words[self.words[INSTANCES]]


class Sound(World):
    """A sound world in the middle of a Wasm call: two references in the set, one in the chunk, one of everything else."""

    def __init__(self, config: Config, *, checked: bool = False) -> None:
        super().__init__(config, checked=checked)
        rt = self.rt
        rt.register(1)
        self.held = self.new(1)
        self.wide = self.new(2)
        self.inner = self.new(1)
        self.outer = self.new(0, self.inner)
        self.shared = self.new(1)
        rt.instantiate(0, 0, self.moved(self.shared), 0b01, 2, 0)
        self.x, self.y = self.new(1), self.new(1)
        rt.call_wasm(0, PC, [self.moved(self.x), self.moved(self.y)])
        rt.gc()
        rt.global_get(PC, 0, 0, 2)
        rt.table_set(PC, 0, 0, 0)
        rt.drop(self.moved(self.new(1)))
        hole = self.new(1)
        self.last = self.new(2)
        rt.drop(self.moved(hole))

"""The registry of stack maps against a linear scan: the same modules are accepted, the same pcs have the same maps."""

from __future__ import annotations

from typing import Final

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from fuzz.machines.findings import Component, agree, judged
from impl.arena import HEADER_WORDS, CheckedMemory, alloc, dealloc, initialise, raw_memory
from impl.errors import RegistrationRefused
from impl.stack_maps import (
    BITS,
    MAPPED_WORDS,
    REGISTRY_WORDS,
    image_words,
    lookup_stack_map,
    register_stack_maps,
    registry_init,
    write_image,
)
from model.code import Function, Module
from model.registry import accepts, find, interesting_pcs

STACK_WORDS: Final = 16
HEAP_WORDS: Final = 4096

INFOS: Final = st.tuples(st.integers(0, 9), st.just(2), st.integers(0, 3))


@st.composite
def functions(draw: st.DrawFn) -> Function:
    """Draw a function; the range of pcs is narrow, so that functions touch and overlap often."""
    start = draw(st.integers(1, 48))
    length = draw(st.integers(1, 12))
    return start, start + length, tuple(draw(st.lists(INFOS, max_size=4)))


@st.composite
def modules(draw: st.DrawFn) -> Module:
    """Draw a module of functions side by side, or anywhere."""
    if draw(st.booleans()):
        return tuple(draw(st.lists(functions(), min_size=1, max_size=3)))
    start = draw(st.integers(1, 48))
    made: list[Function] = []
    for _ in range(draw(st.integers(1, 3))):
        length = draw(st.integers(0, 8))
        infos = draw(st.lists(INFOS, max_size=3)) if length else []
        made.append((start, start + length, tuple((offset % length, words, bits) for offset, words, bits in infos)))
        start += length + draw(st.integers(0, 2))
    return tuple(draw(st.permutations(made)))


def must_accept(registered: list[Module], module: Module) -> bool:
    """Say whether a module must be accepted; one without a map registers nothing, so that its ranges do not matter."""
    return not any(infos for _, _, infos in module) or accepts(registered, module)


class RegistryMachine(Component):
    """One registry; `registered` are the modules that were accepted, `known` all that were offered."""

    def __init__(self) -> None:
        super().__init__()
        self.mem = CheckedMemory(raw_memory(HEADER_WORDS + STACK_WORDS + HEAP_WORDS))
        initialise(self.mem, STACK_WORDS, len(self.mem), 0)
        self.registry = alloc(self.mem, REGISTRY_WORDS, 1)
        registry_init(self.mem, self.registry)
        self.registered: list[Module] = []
        self.known: list[Module] = []

    @rule(module=modules())
    @judged
    def register(self, module: Module) -> None:
        """Offer a module."""
        self.offer(module)

    @precondition(lambda self: self.known)
    @rule(pick=st.integers(0, 63))
    @judged
    def register_again(self, pick: int) -> None:
        """Offer a module once more, whether it was accepted or refused."""
        self.offer(self.known[pick % len(self.known)])

    def offer(self, module: Module) -> None:
        """Compare the decision, and that a refusal changes nothing."""
        image = write_image(self.mem, module)
        before = self.mem.words.tobytes()
        try:
            register_stack_maps(self.mem, self.registry, image)
            accepted = True
        except RegistrationRefused:
            accepted = False
        agree(f"acceptance of {module} beside {self.registered}", must_accept(self.registered, module), accepted)
        if accepted:
            self.registered.append(module)
        else:
            agree("whether a refusal leaves the memory as it was", True, self.mem.words.tobytes() == before)
        dealloc(self.mem, image, image_words(module), 1)
        self.known.append(module)
        for pc in interesting_pcs(module):
            self.compare(pc)

    @rule(pc=st.integers(1, 80))
    @judged
    def look_up(self, pc: int) -> None:
        """Look a pc up that nobody thought of."""
        self.compare(pc)

    def compare(self, pc: int) -> None:
        """Compare what is found for one pc."""
        entry = lookup_stack_map(self.mem, self.registry, pc)
        found = (self.mem[entry + MAPPED_WORDS], self.mem[entry + BITS]) if entry else None
        agree(f"the map of pc {pc} among {self.registered}", find(self.registered, pc), found)

    @judged
    def end(self) -> None:
        """No registration has disturbed an earlier one."""
        for module in self.known:
            for pc in interesting_pcs(module):
                self.compare(pc)

"""Each word that a run writes takes each object along a step of the protocol that was proved, or changes nothing that the protocol knows.

A `Conformance` replaces a runtime's memory by one that reports every write, and stands between the runtime and its host. After a write
that matters it reads of each object, from the words alone, what the protocol speaks of. A set that is being rearranged is read when that is
done.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from impl.activations_table import CHUNK, COLLECTING, END, NEXT, OVER, PRECISE, SWEEPING, TABLE_WORDS
from impl.checked import CheckedMemory
from impl.externref import REF_COUNT, VTABLE_ALIGN_BYTES, VTABLE_FIELDS, VTABLE_SIZE_BYTES, Host
from impl.hash_set import BUCKETS, CAPACITY
from impl.header import DOORBELL, FRAME_POINTER, INSTANCES, TABLE
from impl.instance import CELLS, MODULE, TABLE_ELEMENTS, TABLE_SIZE
from impl.layout import WORD_SHIFT, layout_for
from impl.runtime import Runtime
from impl.stack import BASE, DROP, EXTRA, HOST, KIND, LINK, RETURN_PC, SIZE, WASM
from proofs.protocol import DYING, EMPTY, IDLE, SWEEP, State
from proofs.protocol_steps import STEPS, Step
from proofs.simulation import (
    FALLING,
    GONE,
    LOOKING,
    MERGING,
    OUTSIDE,
    RELEASING,
    WHOLE,
    Nonconforming,
    Seen,
    Simulation,
)

SETS: Final = (OVER, PRECISE, SWEEPING)


class WatchedMemory(CheckedMemory):
    """A checked memory that reports each write of a word to whoever watches.

    Args:
        memory: Its words are watched from now on; it must not be used any more.
        watcher: Whom to report to.
    """

    __slots__ = ("_watcher",)

    def __init__(self, memory: CheckedMemory, watcher: Conformance) -> None:
        state = memory.snapshot()
        super().__init__(memory.words)
        self.restore(state)
        self._watcher = watcher

    def __setitem__(self, index: int, word: int) -> None:
        """Write a word; see `CheckedMemory`."""
        old = self.words[index] if 0 <= index < len(self.words) else 0
        super().__setitem__(index, word)
        if index != DOORBELL and not self.is_open():
            self._watcher.written(index, old, word)


class Watched:
    """One object that exists: the states in which it may be, what was seen of it last, and how often its destructor was called."""

    __slots__ = ("calls", "fields", "seen", "states", "value")

    def __init__(self, value: int, fields: int) -> None:
        self.value = value
        self.fields = fields
        self.states: frozenset[State] = frozenset()
        self.seen: Seen | None = None
        self.calls = 0


class Frames:
    """What the frames of the simulated stack show: words of activations, values under destruction, references in flight."""

    __slots__ = ("depth", "dying", "far", "in_flight", "near")

    def __init__(self, words: memoryview[int], base: int) -> None:
        self.near: list[int] = []
        self.far: list[int] = []
        self.dying: list[int] = []
        self.in_flight: list[int] = []
        self.depth = 0
        fp = words[FRAME_POINTER]
        while words[fp + KIND] != BASE:
            kind, sp = words[fp + KIND], fp - words[fp + SIZE]
            if kind == WASM:
                (self.far if fp < base else self.near).extend(words[sp:fp])
            elif kind == HOST:
                self.in_flight.extend(words[sp:fp])
            elif kind == DROP and words[sp]:
                self.dying.append(words[sp])
                self.depth += fp < base
            fp = words[fp + LINK]


class Conformance:
    """Watches a runtime from now on, in which no object exists yet.

    Args:
        runtime: Its memory must be a checked one. Memory and host are replaced.
        steps: The protocol's steps.

    Attributes:
        memory: What the runtime now uses.
        simulation: How often each step was taken.

    Raises:
        TypeError: The memory is not checked.
    """

    def __init__(self, runtime: Runtime, steps: tuple[Step, ...] = STEPS) -> None:
        if not isinstance(runtime.memory, CheckedMemory):
            raise TypeError("conformance is checked over a checked memory")
        self.simulation = Simulation(steps)
        self.memory = WatchedMemory(runtime.memory, self)
        self._words = self.memory.words
        self._host: Host = runtime.host
        self._config = runtime.config
        # Of each module: the mask of the map at each safepoint that has one.
        self._maps = [
            {start + offset: bits for start, _end, infos in module for offset, _words, bits in infos} for module in runtime.config.modules
        ]
        runtime.memory = self.memory
        runtime.host = self
        self._table = self._words[TABLE]
        self.restart()

    def restart(self) -> None:
        """Forget everything: the memory is again one in which no object exists."""
        self._objects: dict[int, Watched] = {}
        self._unborn: dict[int, Watched] = {}
        self._phase = OUTSIDE
        # Frames below this address are younger than the collection.
        self._base = 0
        self._unsettled = False
        self._pending = False
        self._control: frozenset[int] = frozenset()
        self._find_control()

    # Between the runtime and its host.

    def construct(self, value: int, vtable: int) -> None:
        """Note where the reference of a new value will be. See `impl.externref.Host`."""
        words = self._words
        _size, _align, footer_bytes = layout_for(words[vtable + VTABLE_SIZE_BYTES], words[vtable + VTABLE_ALIGN_BYTES])
        externref = value + (footer_bytes >> WORD_SHIFT)
        self._unborn.clear()
        self._host.construct(value, vtable)
        self._unborn[externref] = Watched(value, words[vtable + VTABLE_FIELDS])

    def destroy(self, externref: int) -> None:
        """Check that the protocol has this destructor begin, and once. See `impl.externref.Host`."""
        self._complete("a destructor begins")
        watched = self._objects.get(externref)
        if watched is None or watched.calls or any(state.life != DYING for state in watched.states):
            raise Nonconforming(f"the destructor of {externref} is called, which is not under destruction, or has been destroyed before")
        watched.calls = 1
        self._host.destroy(externref)
        self._complete("a destructor ends")

    def settle(self, held: Mapping[int, int], live: Mapping[int, int]) -> None:
        """Compare what cannot be seen with what the model knows, after an operation.

        Args:
            held: References that the host holds, for each object that is not under destruction.
            live: Locals of any activation that may be read, by object; those without may be left out.

        Raises:
            Nonconforming: An object that should exist does not, or is in no state that fits.
        """
        self._complete("an operation is over")
        in_flight = Frames(self._words, self._base).in_flight
        for externref, number in held.items():
            watched = self._objects.get(externref)
            if watched is None:
                raise Nonconforming(f"object {externref} should exist, and does not")
            try:
                watched.states = self.simulation.settle(watched.states, number + in_flight.count(externref), live.get(externref, 0))
            except Nonconforming as error:
                raise Nonconforming(f"object {externref}: {error}") from None

    # Writes.

    def written(self, index: int, old: int, word: int) -> None:
        """Take note of a write, outside the allocator.

        Raises:
            Nonconforming: No step of the protocol explains what it did to an object.
        """
        table = self._table
        objects = self._objects
        if index in self._unborn:
            self._born(index)
            return
        if not table <= index < table + TABLE_WORDS:
            named = old in objects or word in objects
            if not (index == FRAME_POINTER or index in objects or index in self._control or (named and old != word)):
                return
            if index in self._control:
                self._find_control()
            elif named and self._is_bucket(index):
                # An insertion puts one key into the bucket of another, which has then to find a new one.
                self._unsettled = bool(old and word)
        elif index == table + COLLECTING:
            self._phase = LOOKING if word else OUTSIDE
            self._base = self._words[FRAME_POINTER] if word else 0
            self._look()
            if word:
                self._expect_roots()
            return
        elif index == table + NEXT and self._phase != OUTSIDE:
            self._phase = RELEASING if self._phase == LOOKING else MERGING
        self._look()

    def _born(self, externref: int) -> None:
        """Begin to watch an object whose count has just been written."""
        watched = self._unborn.pop(externref)
        self._complete("an object is made")
        seen = self._read(self._objects | {externref: watched}).get(externref)
        if seen is None:
            raise Nonconforming("an object is made while a set is rearranged")
        phase = IDLE if seen.phase == OUTSIDE else SWEEP
        watched.states = self.simulation.begin(EMPTY._replace(phase=phase, depth=seen.depth, room=seen.room), seen)
        watched.seen = seen
        self._objects[externref] = watched

    def _complete(self, when: str) -> None:
        """Say that nothing may be half done now."""
        if self._pending:
            self._look()
        if self._pending:
            raise Nonconforming(f"{when} while a set is rearranged")

    def _look(self) -> None:
        """Read all objects, and let each take the step that was seen."""
        objects = self._objects
        found = self._read(objects)
        self._pending = not found and bool(objects)
        for externref, seen in found.items():
            watched = objects[externref]
            if seen != watched.seen:
                try:
                    watched.states = self.simulation.follow(watched.states, seen)
                except Nonconforming as error:
                    raise Nonconforming(f"object {externref}: {error}") from None
                watched.seen = seen
                if seen.stage == GONE:
                    del objects[externref]

    def _expect_roots(self) -> None:
        """Let the locals that stack maps list now, by linear scan of the code, be those that may be read."""
        self._complete("a collection begins")
        words = self._words
        roots: list[int] = []
        fp = words[FRAME_POINTER]
        while words[fp + KIND] != BASE:
            if words[fp + KIND] == WASM:
                module = words[words[words[INSTANCES] + words[fp + EXTRA]] + MODULE]
                bits = self._maps[module].get(words[fp + RETURN_PC], 0)
                roots += [word for place, word in enumerate(words[fp - words[fp + SIZE] : fp]) if bits >> place & 1]
            fp = words[fp + LINK]
        for externref, watched in self._objects.items():
            try:
                watched.states = self.simulation.narrow(watched.states, roots.count(externref))
            except Nonconforming as error:
                raise Nonconforming(f"object {externref}: {error}") from None

    # Reading.

    def _find_control(self) -> None:
        """Find the words that say which words are globals, tables and segments."""
        words, array = self._words, self._words[INSTANCES]
        control = set(range(array, array + self._config.instances)) if array else set()
        for instance in [words[entry] for entry in control]:
            if instance:
                control |= {instance + TABLE_ELEMENTS, instance + TABLE_SIZE}
        self._control = frozenset(control)

    def _is_bucket(self, index: int) -> bool:
        words = self._words
        return any(0 <= index - words[self._table + s + BUCKETS] < words[self._table + s + CAPACITY] for s in SETS)

    def _members(self) -> list[list[int]] | None:
        """Return the members of the three sets, or None while one of them is being rearranged."""
        if self._unsettled:
            return None
        words = self._words
        found: list[list[int]] = []
        places: list[int] = []
        for s in SETS:
            buckets, capacity, length = words[self._table + s : self._table + s + 3]
            if not buckets or not capacity:
                if buckets or capacity or length:
                    return None
                found.append([])
                continue
            members = [word for word in words[buckets : buckets + capacity] if word]
            if len(members) != length or len(set(members)) != length or buckets in places:
                return None
            places.append(buckets)
            found.append(members)
        return found

    def _cells(self) -> list[int]:
        """Return the words of all globals, tables and segments."""
        words, array = self._words, self._words[INSTANCES]
        count = CELLS + self._config.globals + self._config.segment
        found: list[int] = []
        for instance in words[array : array + self._config.instances] if array else ():
            if instance:
                found += words[instance + CELLS : instance + count]
                elements = words[instance + TABLE_ELEMENTS]
                found += words[elements : elements + words[instance + TABLE_SIZE]]
        return found

    def _read(self, objects: Mapping[int, Watched]) -> dict[int, Seen]:
        """Return what is seen of each object; nothing while a set is rearranged."""
        members = self._members()
        if members is None:
            return {}
        words, table = self._words, self._table
        over, precise, sweeping = members
        frames = Frames(words, self._base)
        cells = self._cells()
        fields = [word for watched in objects.values() for word in words[watched.value : watched.value + watched.fields]]
        chunk = words[words[table + CHUNK] : words[table + NEXT]].tolist()
        room = words[table + END] - words[table + NEXT]
        found: dict[int, Seen] = {}
        for externref, watched in objects.items():
            stage = WHOLE
            if externref in frames.dying:
                stage = FALLING
            elif watched.seen is not None and watched.seen.stage == FALLING:
                stage = GONE
            found[externref] = Seen(
                stage,
                words[externref + REF_COUNT],
                cells.count(externref),
                fields.count(externref),
                chunk.count(externref),
                over.count(externref),
                precise.count(externref),
                sweeping.count(externref),
                frames.near.count(externref),
                frames.far.count(externref),
                self._phase,
                frames.depth,
                room,
            )
        return found

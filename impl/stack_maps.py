"""A stack map is found at exactly its safepoint's pc, and modules that overlap are refused whole.

A *module image* is the code of a module as a compiler would emit it: functions with their ranges, safepoints with their maps.
`register_stack_maps` turns it into one sorted array of entries. `lookup_stack_map` bisects twice: for the module whose range
contains the pc, then for its entry. Any other pc has no map: a neighbour's lists words that are not references (CVE-2021-39218).

```
image     function_count, then per function: start, end, info_count, then per safepoint: offset, mapped_words, bits
registry  MODULES -> [START, END, ENTRIES, ENTRY_COUNT] ...   sorted by range, disjoint
                                 |
                                 +-> [PC, MAPPED_WORDS, BITS] ...   sorted by pc, no pc twice
```
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Self, TypeAlias

from impl.arena import HEADER_WORDS, CheckedMemory, Memory, alloc, dealloc, initialise, raw_memory
from impl.errors import RegistrationRefused

Info: TypeAlias = tuple[int, int, int]
Function: TypeAlias = tuple[int, int, Sequence[Info]]

# The registry.
MODULES: Final = 0
MODULES_COUNT: Final = 1
MODULES_CAPACITY: Final = 2
REGISTRY_WORDS: Final = 4
# A module of the registry.
START: Final = 0
END: Final = 1
ENTRIES: Final = 2
ENTRY_COUNT: Final = 3
MODULE_WORDS: Final = 4
# An entry of a module.
PC: Final = 0
MAPPED_WORDS: Final = 1
BITS: Final = 2
ENTRY_WORDS: Final = 3
# A function of an image, whose safepoints follow it, and one safepoint.
FUNCTION_START: Final = 0
FUNCTION_END: Final = 1
FUNCTION_INFOS: Final = 2
FUNCTION_WORDS: Final = 3
INFO_OFFSET: Final = 0
INFO_MAPPED_WORDS: Final = 1
INFO_BITS: Final = 2
INFO_WORDS: Final = 3
MAPPED_WORDS_MAX: Final = 63
FIRST_CAPACITY: Final = 4


# --- images


def image_words(functions: Sequence[Function]) -> int:
    """Return the size in words of the image of `functions`."""
    return 1 + sum(FUNCTION_WORDS + len(infos) * INFO_WORDS for _, _, infos in functions)


def image_row(functions: Sequence[Function]) -> list[int]:
    """Return the words of the image of `functions`; see `write_image`."""
    row = [len(functions)]
    for start, end, infos in functions:
        row += (start, end, len(infos))
        for offset, mapped_words, bits in infos:
            if not 0 <= mapped_words <= MAPPED_WORDS_MAX:
                text = f"a stack map covers 0 to {MAPPED_WORDS_MAX} words, not {mapped_words}"
                raise ValueError(text)
            if bits < 0 or bits >> mapped_words:
                text = f"mask {bits:#x} has bits outside its {mapped_words} mapped words"
                raise ValueError(text)
            row += (offset, mapped_words, bits)
    return row


def write_image(mem: Memory, functions: Sequence[Function]) -> int:
    """Allocate the image of a module and return its address. Set-up code: the functions come as Python tuples.

    `functions` holds `(start, end, infos)`, a half-open range of pcs and its safepoints, and `infos` holds
    `(offset, mapped_words, bits)`: the safepoint's distance from `start`, the number of frame words that the map covers,
    and a mask in which bit `i` says that word `i`, counted from the stack pointer, is a reference. Whether ranges and offsets
    make sense is for `register_stack_maps` to say; a mask that is no mask of its words raises ValueError here.
    """
    row = image_row(functions)
    image = alloc(mem, len(row), 1)
    for index, word in enumerate(row):
        mem[image + index] = word
    return image


def next_function(mem: Memory, function: int) -> int:
    """Return the address of the function that follows `function` in its image."""
    return function + FUNCTION_WORDS + mem[function + FUNCTION_INFOS] * INFO_WORDS


def has_safepoints(mem: Memory, image: int) -> int:
    """Return 1 if any function of the image has a safepoint with a map, 0 otherwise."""
    function = image + 1
    for _ in range(mem[image]):
        if mem[function + FUNCTION_INFOS] != 0:
            return 1
        function = next_function(mem, function)
    return 0


def image_range(mem: Memory, image: int) -> tuple[int, int]:
    """Return the smallest range of pcs, `(start, end)`, that covers all functions of the image.

    Raises RegistrationRefused for a function that ends before it starts and for two functions that share a pc; a function
    of no length shares none. Linear for functions in order of their pcs, quadratic at worst. The image has a function.
    """
    function = image + 1
    lowest = mem[function + FUNCTION_START]
    highest = lowest
    for index in range(mem[image]):
        start = mem[function + FUNCTION_START]
        end = mem[function + FUNCTION_END]
        if end < start:
            raise RegistrationRefused("a function ends before it starts")
        # A function past everything so far, the usual case, cannot share a pc with an earlier one.
        if start < highest and overlaps_earlier(mem, image, index, start, end):
            raise RegistrationRefused("two functions of the module overlap")
        if start < lowest:
            lowest = start
        if end > highest:
            highest = end
        function = next_function(mem, function)
    return lowest, highest


def overlaps_earlier(mem: Memory, image: int, count: int, start: int, end: int) -> int:
    """Return 1 if `start..end` shares a pc with one of the first `count` functions of the image, 0 otherwise."""
    function = image + 1
    for _ in range(count):
        if share_a_pc(start, end, mem[function + FUNCTION_START], mem[function + FUNCTION_END]):
            return 1
        function = next_function(mem, function)
    return 0


def share_a_pc(start: int, end: int, other_start: int, other_end: int) -> int:
    """Return 1 if two half-open ranges have a pc in common, 0 if not; touching and empty ranges have none."""
    if start < end and other_start < other_end and start < other_end and other_start < end:
        return 1
    return 0


def count_entries(mem: Memory, function: int) -> int:
    """Return the number of distinct safepoint pcs of one function of an image.

    Raises RegistrationRefused for a safepoint outside the function, and for one pc with two different maps. Linear
    for safepoints in order, quadratic at worst.
    """
    length = mem[function + FUNCTION_END] - mem[function + FUNCTION_START]
    first = function + FUNCTION_WORDS
    info = first
    count = 0
    past_highest = 0
    for _ in range(mem[function + FUNCTION_INFOS]):
        offset = mem[info + INFO_OFFSET]
        if offset >= length:
            raise RegistrationRefused("a safepoint lies outside its function")
        if offset >= past_highest:
            past_highest = offset + 1
            count += 1
        elif not repeats_earlier(mem, first, info):
            count += 1
        info += INFO_WORDS
    return count


def repeats_earlier(mem: Memory, first: int, info: int) -> int:
    """Return 1 if a safepoint from `first` up to `info` has the offset of `info`, 0 if none has.

    Raises RegistrationRefused if it has another map than `info`.
    """
    offset = mem[info + INFO_OFFSET]
    earlier = first
    while earlier < info:
        if mem[earlier + INFO_OFFSET] == offset:
            if mem[earlier + INFO_MAPPED_WORDS] != mem[info + INFO_MAPPED_WORDS]:
                raise RegistrationRefused("one pc has two different maps")
            if mem[earlier + INFO_BITS] != mem[info + INFO_BITS]:
                raise RegistrationRefused("one pc has two different maps")
            return 1
        earlier += INFO_WORDS
    return 0


# --- bisection


def module_bisect_step(mem: Memory, modules: int, low: int, high: int, pc: int) -> tuple[int, int]:
    """Halve `low..high`, in which the index of the first module that ends past `pc` lies. Needs `low < high`.

    Invariant: modules before `low` end at or before `pc`, modules from `high` on end past it.
    """
    middle = (low + high) >> 1
    if mem[modules + middle * MODULE_WORDS + END] > pc:
        return low, middle
    return middle + 1, high


def module_index(mem: Memory, modules: int, count: int, pc: int) -> int:
    """Return the index of the first of `count` modules that ends past `pc`, or `count`. O(log count)."""
    low = 0
    high = count
    while low < high:
        low, high = module_bisect_step(mem, modules, low, high, pc)
    return low


def entry_bisect_step(mem: Memory, entries: int, low: int, high: int, pc: int) -> tuple[int, int]:
    """Halve `low..high`, in which the index of the first entry at or past `pc` lies. Needs `low < high`.

    Invariant: entries before `low` have smaller pcs, entries from `high` on have `pc` or greater ones.
    """
    middle = (low + high) >> 1
    if mem[entries + middle * ENTRY_WORDS + PC] >= pc:
        return low, middle
    return middle + 1, high


def entry_at(mem: Memory, entries: int, count: int, pc: int) -> int:
    """Return the address of the entry whose pc is exactly `pc` among `count` sorted ones, or 0. O(log count)."""
    low = 0
    high = count
    while low < high:
        low, high = entry_bisect_step(mem, entries, low, high, pc)
    if low == count:
        return 0
    entry = entries + low * ENTRY_WORDS
    if mem[entry + PC] != pc:
        return 0
    return entry


def lookup_stack_map(mem: Memory, registry: int, pc: int) -> int:
    """Return the address of the entry for exactly this pc, or 0 if there is none.

    Source: seed `StackMapRegistry::lookup_stack_map`, without its step back to the previous safepoint and with half-open
    ranges. O(log modules + log entries).
    """
    modules = mem[registry + MODULES]
    count = mem[registry + MODULES_COUNT]
    index = module_index(mem, modules, count, pc)
    if index == count:
        return 0
    module = modules + index * MODULE_WORDS
    if pc < mem[module + START]:
        return 0
    return entry_at(mem, mem[module + ENTRIES], mem[module + ENTRY_COUNT], pc)


# --- registration


def registry_init(mem: Memory, registry: int) -> None:
    """Make an empty registry of the REGISTRY_WORDS words at `registry`. Allocates nothing."""
    mem[registry + MODULES] = 0
    mem[registry + MODULES_COUNT] = 0
    mem[registry + MODULES_CAPACITY] = 0
    mem[registry + REGISTRY_WORDS - 1] = 0


def registry_clear(mem: Memory, registry: int) -> None:
    """Forget all modules and free what they occupy; no frame of theirs may be on the stack."""
    modules = mem[registry + MODULES]
    for module in range(modules, modules + mem[registry + MODULES_COUNT] * MODULE_WORDS, MODULE_WORDS):
        dealloc(mem, mem[module + ENTRIES], mem[module + ENTRY_COUNT] * ENTRY_WORDS, 1)
    if modules != 0:
        dealloc(mem, modules, mem[registry + MODULES_CAPACITY] * MODULE_WORDS, 1)
    registry_init(mem, registry)


def register_stack_maps(mem: Memory, registry: int, image: int) -> None:
    """Register the stack maps of the module whose image is at `image`. The image itself is not kept.

    Functions and safepoints may come in any order; a safepoint given twice with one map is entered once. A module without
    any safepoint registers nothing. Raises RegistrationRefused, and has changed nothing then, if two functions overlap, a
    safepoint lies outside its function, a pc has two different maps, or the module's range overlaps that of another
    module. The very same module again is accepted and changes nothing; touching ranges are accepted.

    Source: seed `StackMapRegistry::register_stack_maps`. O(log modules) to find the place, O(modules) to make room, and
    linear in the image if that is sorted.
    """
    if not has_safepoints(mem, image):
        return
    start, end = image_range(mem, image)
    entry_count = 0
    function = image + 1
    for _ in range(mem[image]):
        entry_count += count_entries(mem, function)
        function = next_function(mem, function)

    # Registered ranges are disjoint and sorted, so that only the first one that ends past our start can overlap us. Asking
    # the neighbours on both sides by their ends alone misses a module that ends inside the new range.
    count = mem[registry + MODULES_COUNT]
    modules = mem[registry + MODULES]
    index = module_index(mem, modules, count, start)
    if index < count:
        module = modules + index * MODULE_WORDS
        if mem[module + START] == start and mem[module + END] == end:
            if same_maps(mem, module, image, entry_count):
                return
            raise RegistrationRefused("the same range is registered with other maps")
        if mem[module + START] < end:
            raise RegistrationRefused("the range overlaps a registered module")

    entries = alloc(mem, entry_count * ENTRY_WORDS, 1)
    write_entries(mem, entries, image)
    module = insert_module(mem, registry, index)
    mem[module + START] = start
    mem[module + END] = end
    mem[module + ENTRIES] = entries
    mem[module + ENTRY_COUNT] = entry_count


def same_maps(mem: Memory, module: int, image: int, entry_count: int) -> int:
    """Return 1 if a registered module has exactly the maps of an image with `entry_count` distinct pcs, 0 if not."""
    if mem[module + ENTRY_COUNT] != entry_count:
        return 0
    entries = mem[module + ENTRIES]
    function = image + 1
    for _ in range(mem[image]):
        start = mem[function + FUNCTION_START]
        info = function + FUNCTION_WORDS
        for _ in range(mem[function + FUNCTION_INFOS]):
            entry = entry_at(mem, entries, entry_count, start + mem[info + INFO_OFFSET])
            if entry == 0:
                return 0
            if mem[entry + MAPPED_WORDS] != mem[info + INFO_MAPPED_WORDS] or mem[entry + BITS] != mem[info + INFO_BITS]:
                return 0
            info += INFO_WORDS
        function = info
    return 1


def write_entries(mem: Memory, entries: int, image: int) -> None:
    """Write the entries of an image, sorted by pc and each pc once, to `entries`, which has room for exactly these."""
    count = 0
    function = image + 1
    for _ in range(mem[image]):
        start = mem[function + FUNCTION_START]
        info = function + FUNCTION_WORDS
        for _ in range(mem[function + FUNCTION_INFOS]):
            pc = start + mem[info + INFO_OFFSET]
            count += insert_entry(mem, entries, count, pc, info)
            info += INFO_WORDS
        function = info


def insert_entry(mem: Memory, entries: int, count: int, pc: int, info: int) -> int:
    """Insert the map of `info` at its place among `count` sorted entries; return 1, or 0 if `pc` is there already.

    O(1) for a pc past all others, O(count) otherwise.
    """
    place = entries + count * ENTRY_WORDS
    last = place
    while place > entries and mem[place - ENTRY_WORDS + PC] > pc:
        place -= ENTRY_WORDS
    if place > entries and mem[place - ENTRY_WORDS + PC] == pc:
        return 0
    move_up(mem, place, last, ENTRY_WORDS)
    mem[place + PC] = pc
    mem[place + MAPPED_WORDS] = mem[info + INFO_MAPPED_WORDS]
    mem[place + BITS] = mem[info + INFO_BITS]
    return 1


def insert_module(mem: Memory, registry: int, index: int) -> int:
    """Make room for a module at `index` and return its address; its words are the caller's to write. O(modules)."""
    modules = mem[registry + MODULES]
    count = mem[registry + MODULES_COUNT]
    capacity = mem[registry + MODULES_CAPACITY]
    if count == capacity:
        larger = capacity * 2
        if larger == 0:
            larger = FIRST_CAPACITY
        moved = alloc(mem, larger * MODULE_WORDS, 1)
        for word in range(count * MODULE_WORDS):
            mem[moved + word] = mem[modules + word]
        if capacity != 0:
            dealloc(mem, modules, capacity * MODULE_WORDS, 1)
        modules = moved
        mem[registry + MODULES] = modules
        mem[registry + MODULES_CAPACITY] = larger
    place = modules + index * MODULE_WORDS
    move_up(mem, place, modules + count * MODULE_WORDS, MODULE_WORDS)
    mem[registry + MODULES_COUNT] = count + 1
    return place


def move_up(mem: Memory, first: int, last: int, distance: int) -> None:
    """Move the words from `first` up to `last` to addresses greater by `distance`."""
    word = last
    while word > first:
        word -= 1
        mem[word + distance] = mem[word]


# --- handles


@dataclass(frozen=True, slots=True)
class StackMap:
    """Which words of a frame are references, counted from the stack pointer upwards.

    >>> stack_map = StackMap.from_slice([False, True, True])
    >>> stack_map
    StackMap(mapped_words=3, bits=6)
    >>> stack_map.get_bit(0), stack_map.get_bit(1)
    (False, True)
    """

    mapped_words: int
    bits: int

    @classmethod
    def from_slice(cls, words: Sequence[bool]) -> Self:
        """Make the map that has bit `i` set where `words[i]` is true. ValueError for more words than a map covers."""
        if len(words) > MAPPED_WORDS_MAX:
            text = f"a stack map covers 0 to {MAPPED_WORDS_MAX} words, not {len(words)}"
            raise ValueError(text)
        return cls(len(words), sum(1 << index for index, is_reference in enumerate(words) if is_reference))

    def get_bit(self, index: int) -> bool:
        """Say whether word `index` of the frame is a reference. IndexError for a word that the map does not cover."""
        if not 0 <= index < self.mapped_words:
            text = f"word {index} of a map of {self.mapped_words} words"
            raise IndexError(text)
        return bool(self.bits >> index & 1)


@dataclass(frozen=True, slots=True)
class StackMapInformation:
    """A safepoint: its distance in the code from the start of its function, and its map.

    >>> StackMapInformation(0x10, StackMap.from_slice([False, True]))
    StackMapInformation(code_offset=16, stack_map=StackMap(mapped_words=2, bits=2))
    """

    code_offset: int
    stack_map: StackMap


class StackMapRegistry:
    """The stack maps of all registered modules: a handle of a memory and an address. Source: seed `StackMapRegistry`.

    >>> registry = StackMapRegistry.create()
    >>> live = StackMap.from_slice([False, True])
    >>> registry.register_stack_maps([(range(0x1000, 0x2000), [StackMapInformation(0x10, live)])])
    >>> registry.lookup_stack_map(0x1010)
    StackMap(mapped_words=2, bits=2)
    >>> registry.lookup_stack_map(0x1011) is None
    True
    >>> registry.register_stack_maps([(range(0x1800, 0x2800), [StackMapInformation(0, live)])])
    Traceback (most recent call last):
    impl.errors.RegistrationRefused: the range overlaps a registered module
    """

    __slots__ = ("address", "memory")

    def __init__(self, memory: memoryview[int] | CheckedMemory, address: int) -> None:
        """Take hold of the registry at `address` of `memory`; see `create` for a new one."""
        self.memory = memory
        self.address = address

    @classmethod
    def create(cls, heap_words: int = 4096) -> Self:
        """Make an empty registry in a memory of its own, whose heap has some `heap_words` words."""
        stack_words = 16
        memory = raw_memory(HEADER_WORDS + stack_words + heap_words)
        initialise(memory, stack_words, len(memory), 0)
        address = alloc(memory, REGISTRY_WORDS, 1)
        registry_init(memory, address)
        return cls(memory, address)

    def register_stack_maps(self, stack_maps: Iterable[tuple[range, Sequence[StackMapInformation]]]) -> None:
        """Register a module, given as the range of pcs and the safepoints of each function. See `register_stack_maps`."""
        functions = [
            (pcs.start, pcs.stop, [(info.code_offset, info.stack_map.mapped_words, info.stack_map.bits) for info in infos])
            for pcs, infos in stack_maps
        ]
        image = write_image(self.memory, functions)
        try:
            register_stack_maps(self.memory, self.address, image)
        finally:
            dealloc(self.memory, image, image_words(functions), 1)

    def lookup_stack_map(self, pc: int) -> StackMap | None:
        """Return the map of the safepoint at exactly `pc`, or None."""
        entry = lookup_stack_map(self.memory, self.address, pc)
        if entry == 0:
            return None
        return StackMap(self.memory[entry + MAPPED_WORDS], self.memory[entry + BITS])

"""What Python objects say of a module is what the functions over words read, word for word, and what they find is what Python is told.

Images are made from Python's tuples, so their shape is no symbol: what is said here is said of some shapes, and of any numbers in them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeAlias

import z3

from impl.errors import RegistrationRefused
from impl.stack_maps import (
    BITS,
    FUNCTION_END,
    FUNCTION_INFOS,
    FUNCTION_START,
    FUNCTION_WORDS,
    INFO_BITS,
    INFO_MAPPED_WORDS,
    INFO_OFFSET,
    INFO_WORDS,
    MAPPED_WORDS,
    StackMap,
    StackMapInformation,
    StackMapRegistry,
    image_row,
    image_words,
    next_function,
    write_image,
)
from proofs.cuts import with_contracts
from proofs.memory import at, fresh_memory
from proofs.obligations import Claim, Obligation, Verdict, statement
from proofs.paths import Outcome, Path, always, explore
from proofs.words import Word

SUBJECT = "registry"
SMALL = 1 << 32
# A map's mask is a word without a sign, so that compiled code reads the same number.
MAP_WORDS_MAX = 63
# How many safepoints each function of an image has.
Shape: TypeAlias = tuple[int, ...]
SHAPES: Final[tuple[Shape, ...]] = ((), (0,), (1,), (2, 0, 1))

MEMORY = fresh_memory()
IMAGE, REGISTRY, ENTRY = z3.BitVecs("image registry entry", 64)


def _functions(path: Path, shape: Shape) -> list[tuple[Any, Any, list[tuple[Any, Any, Any]]]]:
    """Return functions of any ranges and safepoints, in a shape."""
    return [
        (
            path.word(f"start {f}"),
            path.word(f"end {f}"),
            [tuple(path.word(f"{what} {f} {i}") for what in ("offset", "mapped_words", "bits")) for i in range(infos)],
        )
        for f, infos in enumerate(shape)
    ]


def _mask(mapped_words: z3.BitVecRef, bits: z3.BitVecRef) -> z3.BoolRef:
    """Say that a mask has bits only for words that a map covers, and that it covers no more than it may."""
    return z3.And(z3.ULE(mapped_words, MAP_WORDS_MAX), z3.ULT(bits, z3.BitVecVal(1, 64) << mapped_words))


def _image_is_read_as_written() -> list[Claim]:
    """An image of any functions and safepoints is read back as it was written, from a block of just its size; it is refused if and only if
    a mask is none of at most 63 words.

    `write_image`, with a contract for the allocator, and then each word as the functions over images find it.
    """
    assumptions = {"the image lies in the memory": z3.ULT(IMAGE, SMALL)}

    def claim(shape: Shape) -> Claim:
        masks = [
            _mask(z3.BitVec(f"mapped_words {f} {i}", 64), z3.BitVec(f"bits {f} {i}", 64))
            for f, infos in enumerate(shape)
            for i in range(infos)
        ]

        def run(path: Path) -> list[z3.BoolRef] | None:
            functions = _functions(path, shape)
            words = image_words(functions)
            right: list[z3.BoolRef] = []

            def allocate(_mem: object, size: int, align: int) -> Any:
                right.append(z3.And(size == words, align == 1))
                return path.word(IMAGE)

            try:
                image = with_contracts(write_image, alloc=allocate)(path.mem, functions)
            except ValueError:
                return None
            right += [image.term == IMAGE, len(right) == 1, path.mem.wrote_only([(IMAGE, IMAGE + words)]), len(path.mem.writes) == words]
            return right + _read_back(path, functions)

        def promise(outcome: Outcome) -> z3.BoolRef:
            if outcome.value is None:
                return z3.And(z3.Not(z3.And(*masks)), outcome.mem.wrote_only([]))
            return z3.And(*masks, *outcome.value)

        return Claim(assumptions, always(explore(run, assumptions.values()), promise), part=f"shape {shape}")

    return [claim(shape) for shape in SHAPES]


def _read_back(path: Path, functions: list[tuple[Any, Any, list[tuple[Any, Any, Any]]]]) -> list[z3.BoolRef]:
    """Say that the functions over images find these functions in the memory of a path."""
    now = path.mem.now
    right = [at(now, IMAGE) == len(functions)]
    function: Any = path.word(IMAGE + 1)
    for start, end, infos in functions:
        right += [at(now, function.term + FUNCTION_START) == start.term, at(now, function.term + FUNCTION_END) == end.term]
        right.append(at(now, function.term + FUNCTION_INFOS) == len(infos))
        for place, info in enumerate(infos):
            address = function.term + FUNCTION_WORDS + place * INFO_WORDS
            fields = zip((INFO_OFFSET, INFO_MAPPED_WORDS, INFO_BITS), info, strict=True)
            right += [at(now, address + field) == word.term for field, word in fields]
        function = next_function(path.mem, function)
    right.append(function.term == IMAGE + image_words(functions))
    return right


def _bits_are_read_exactly() -> list[Claim]:
    """A stack map says of each word that it covers whether it is a reference, as its mask does; of any other word, it refuses to. Made of
    truth values, it covers as many words, in their order; more than 63 are refused.

    `StackMap.get_bit` for any map; `StackMap.from_slice` for any three values, and for 63 and 64.
    """
    mapped_words, bits, index = z3.BitVecs("mapped_words bits index", 64)
    flags = [z3.Bool(f"word {n} is a reference") for n in range(3)]

    def reading(path: Path) -> bool | None:
        stack_map = StackMap(path.word(mapped_words), path.word(bits))
        try:
            return stack_map.get_bit(path.word(index))
        except IndexError:
            return None

    def read(outcome: Outcome) -> z3.BoolRef:
        if outcome.value is None:
            return z3.UGE(index, mapped_words)
        return z3.And(z3.ULT(index, mapped_words), (z3.LShR(bits, index) & 1 == 1) == z3.BoolVal(outcome.value))

    def making(path: Path) -> StackMap:
        return StackMap.from_slice([path.take(flag) for flag in flags])

    def made(outcome: Outcome) -> z3.BoolRef:
        expected = z3.Sum(*(z3.If(flag, z3.BitVecVal(1 << n, 64), z3.BitVecVal(0, 64)) for n, flag in enumerate(flags)))
        return z3.And(outcome.value.mapped_words == 3, expected == outcome.value.bits)

    longest = StackMap.from_slice([True] * MAP_WORDS_MAX) == StackMap(MAP_WORDS_MAX, (1 << MAP_WORDS_MAX) - 1)
    return [
        Claim({}, always(explore(reading), read), part="get_bit"),
        Claim({}, always(explore(making), made), part="from_slice"),
        Claim({}, z3.BoolVal(longest and _refuses(lambda: StackMap.from_slice([False] * (MAP_WORDS_MAX + 1)))), part="longest map"),
    ]


def _refuses(make: Callable[[], object]) -> bool:
    try:
        make()
    except ValueError:
        return True
    return False


def _handle_tells_what_is_found() -> list[Claim]:
    """A registry's handle gives the map of the entry that is found, or none if none is; it registers the image of just what it is given,
    and frees that, whether it is refused or not.

    `StackMapRegistry` with contracts for the functions over words; what is registered is one module as an example.
    """
    pc = z3.BitVec("pc", 64)
    refused = z3.Bool("the module is refused")
    assumptions = {"entries lie in the memory": z3.ULT(ENTRY, SMALL)}
    functions = [(16, 32, [(4, 2, 3), (9, 1, 0)])]

    def looking(path: Path) -> tuple[Any, list[z3.BoolRef]]:
        asked: list[z3.BoolRef] = []

        def look(mem: object, registry: Any, wanted: Any) -> Any:
            asked.append(z3.And(mem is path.mem, registry.term == REGISTRY, wanted.term == pc))
            return path.word(ENTRY)

        look_up = with_contracts(StackMapRegistry.lookup_stack_map, lookup_stack_map=look)
        return look_up(StackMapRegistry(path.mem, path.word(REGISTRY)), path.word(pc)), asked

    def looked(outcome: Outcome) -> z3.BoolRef:
        found, asked = outcome.value
        if found is None:
            return z3.And(len(asked) == 1, *asked, ENTRY == 0)
        same = z3.And(found.mapped_words.term == at(MEMORY, ENTRY + MAPPED_WORDS), found.bits.term == at(MEMORY, ENTRY + BITS))
        return z3.And(len(asked) == 1, *asked, ENTRY != 0, same)

    def registering(path: Path) -> list[z3.BoolRef]:
        given: list[z3.BoolRef] = []

        def write(_mem: object, described: object) -> Word:
            given.append(z3.BoolVal(described == functions and not given))
            return Word(IMAGE, path)

        def register(_mem: object, registry: Any, image: Any) -> None:
            given.append(z3.And(registry.term == REGISTRY, image.term == IMAGE, len(given) == 1))
            if path.take(refused):
                raise RegistrationRefused("on request")

        def free(_mem: object, image: Any, size: int, align: int) -> None:
            given.append(z3.And(image.term == IMAGE, size == image_words(functions), align == 1, len(given) == 2))

        register_all = with_contracts(StackMapRegistry.register_stack_maps, write_image=write, register_stack_maps=register, dealloc=free)
        infos = [StackMapInformation(offset, StackMap(words, bits)) for offset, words, bits in functions[0][2]]
        try:
            register_all(StackMapRegistry(path.mem, path.word(REGISTRY)), [(range(16, 32), infos)])
        except RegistrationRefused:
            given.append(refused)
        else:
            given.append(z3.Not(refused))
        return given

    def registered(outcome: Outcome) -> z3.BoolRef:
        return z3.And(len(outcome.value) == 4, *outcome.value)

    return [
        Claim(assumptions, always(explore(looking, assumptions.values()), looked), part="lookup_stack_map"),
        Claim({}, always(explore(registering), registered), part="register_stack_maps"),
    ]


def obligations() -> list[Obligation]:
    """Return the obligations about what Python objects say of modules, and what they are told."""
    proved: list[tuple[str, Any, tuple[Callable[..., object], ...]]] = [
        ("image-is-read-as-it-was-written", _image_is_read_as_written, (write_image, image_row, image_words, next_function)),
        ("bits-of-a-map-are-exact", _bits_are_read_exactly, (StackMap.get_bit, StackMap.from_slice)),
        (
            "handle-tells-what-is-found",
            _handle_tells_what_is_found,
            (StackMapRegistry.lookup_stack_map, StackMapRegistry.register_stack_maps),
        ),
    ]
    return [Obligation(name, SUBJECT, statement(build), Verdict.PROVED, build, functions) for name, build, functions in proved]

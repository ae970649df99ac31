"""A walk of the stack visits each frame, and of a frame exactly the words that its stack map lists."""

from __future__ import annotations

from typing import Any

import z3

from impl.collector import find_precise_stack_roots, scan_frame, scan_word, walk_frame
from impl.errors import StackExhausted
from impl.header import FRAME_POINTER, STACK_LOW, VERDICT, WALK_LIMIT
from impl.stack import EXTRA, FRAME_HEADER, KIND, RETURN_PC, SIZE, pop_frame, push_frame, walk_step
from impl.stack_maps import BITS
from proofs.cuts import Again, Cut, Left, Reached, Returned, with_contracts
from proofs.memory import at, fresh_memory
from proofs.obligations import Claim, Obligation, Verdict, statement
from proofs.paths import Outcome, Path, always, explore

SUBJECT = "memory operations"
SMALL = 1 << 32

MEMORY = fresh_memory()
X, FP, SP, TABLE, ENTRY = z3.BitVecs("x fp sp table entry", 64)


def _push_writes_its_frame_only() -> Claim:
    """Pushing a frame writes its header and the frame pointer, inside the stack, and is refused exactly when it does not fit."""
    kind, pc, size, extra = z3.BitVecs("kind pc size extra", 64)
    link, low = at(MEMORY, FRAME_POINTER), at(MEMORY, STACK_LOW)
    top = link - at(MEMORY, link + SIZE)
    assumptions = {
        "addresses and sizes are small": z3.And(z3.ULT(link, SMALL), z3.ULT(low, SMALL), z3.ULT(size, SMALL)),
        "the youngest frame lies in the stack, above the header": z3.And(
            z3.ULE(at(MEMORY, link + SIZE), link), z3.ULE(low, top), z3.UGE(low, 64)
        ),
    }

    def promise(outcome: Outcome) -> z3.BoolRef:
        fits = z3.UGE(top, low + FRAME_HEADER + size)
        if isinstance(outcome.raised, StackExhausted):
            return z3.And(z3.Not(fits), outcome.mem.wrote_only([VERDICT]))
        now, fp = outcome.mem.now, top - FRAME_HEADER
        return z3.And(
            fits,
            outcome.term == fp - size,
            outcome.mem.wrote_only([FRAME_POINTER, (fp, top)]),
            at(now, FRAME_POINTER) == fp,
            at(now, fp) == link,
            at(now, fp + RETURN_PC) == pc,
            at(now, fp + KIND) == kind,
            at(now, fp + SIZE) == size,
            at(now, fp + EXTRA) == extra,
            z3.ULE(low, fp - size),
            z3.ULT(fp, top),
        )

    outcomes = explore(
        lambda path: push_frame(path.mem, path.word(kind), path.word(pc), path.word(size), path.word(extra)), assumptions.values()
    )
    return Claim(assumptions, always(outcomes, promise))


def _pop_undoes_push() -> Claim:
    """Popping a frame that was pushed puts the frame pointer back, and a round of clearing leaves a zero.

    What `pop_frame` does before it clears words, after a push; then one round of its loop.
    """
    size = z3.BitVec("size", 64)
    link, low = at(MEMORY, FRAME_POINTER), at(MEMORY, STACK_LOW)
    assumptions = {
        "addresses and sizes are small": z3.And(z3.ULT(link, SMALL), z3.ULT(low, SMALL), z3.ULT(size, SMALL), z3.ULT(X, SMALL)),
        "the youngest frame lies in the stack, above the header": z3.And(
            z3.ULE(at(MEMORY, link + SIZE), link), z3.ULE(low, link - at(MEMORY, link + SIZE)), z3.UGE(low, 64)
        ),
    }

    def run(path: Path) -> object:
        push_frame(path.mem, 2, 0, path.word(size), 0)
        cut = Cut(pop_frame)
        reached = cut.entry(path.mem)
        if not isinstance(reached, Reached):
            raise TypeError("pop_frame returned before it cleared anything")
        popped = path.mem.now
        cut.step({**reached.state, "address": path.word(X)})
        return popped

    def promise(outcome: Outcome) -> z3.BoolRef | bool:
        if outcome.raised is not None:
            return True
        return z3.And(
            at(outcome.value, FRAME_POINTER) == link,
            at(outcome.mem.now, X) == 0,
            at(outcome.mem.now, FRAME_POINTER) == z3.If(X == FRAME_POINTER, 0, link),
        )

    return Claim(assumptions, always(explore(run, assumptions.values()), promise))


def _walk_follows_links() -> Claim:
    """A step of a walk goes to the youngest frame and then along the links, until the walk is cut short; it writes nothing."""
    visited = z3.BitVec("visited", 64)
    limit = at(MEMORY, WALK_LIMIT)
    assumptions = {"a stack has fewer frames than words": z3.ULT(visited, SMALL)}

    def promise(outcome: Outcome) -> z3.BoolRef:
        lost = z3.And(limit != 0, z3.UGE(visited + 1, limit))
        onward = z3.If(visited == 0, at(MEMORY, FRAME_POINTER), at(MEMORY, FP))
        return z3.And(outcome.term == z3.If(lost, z3.BitVecVal(0, 64), onward), outcome.mem.wrote_only([]))

    outcomes = explore(lambda path: walk_step(path.mem, path.word(FP), path.word(visited)), assumptions.values())
    return Claim(assumptions, always(outcomes, promise))


def _scan_begins_at_the_lowest_word() -> Claim:
    """The scan of a frame begins with bit 0 of its map at its lowest word."""
    assumptions = {"addresses are small": z3.ULT(ENTRY, SMALL)}

    def run(path: Path) -> tuple[Any, Any]:
        reached = Cut(scan_frame).entry(path.mem, path.word(TABLE), path.word(ENTRY), path.word(SP))
        state: dict[str, Any] = getattr(reached, "state", {})
        return state["address"], state["bits"]

    def promise(outcome: Outcome) -> z3.BoolRef:
        address, bits = outcome.terms()
        return z3.And(address == SP, bits == at(MEMORY, ENTRY + BITS), outcome.mem.wrote_only([]))

    return Claim(assumptions, always(explore(run, assumptions.values()), promise))


def _scan_takes_listed_words_only() -> Claim:
    """A round of the scan takes word k of the frame if and only if bit k of the map is set; it ends only when no set bit is left, and it
    ends.

    Invariant of the loop in `scan_frame` after k rounds: `address` is `sp + k`, and `bits` is the map shifted right by k.
    """
    bits, k, bit = z3.BitVecs("map k bit", 64)
    assumptions = {
        "addresses are small": z3.ULT(SP, SMALL),
        "at most 64 rounds were made": z3.ULE(k, 64),
        "a bit has a number below 64": z3.ULT(bit, 64),
    }

    def run(path: Path) -> tuple[object, list[z3.BitVecRef]]:
        visited: list[z3.BitVecRef] = []

        def note(_mem: object, _table: object, address: Any) -> None:
            visited.append(address.term)

        state = {"mem": path.mem, "table": 0, "entry": 0, "sp": path.word(SP)}
        state |= {"bits": path.word(bits) >> path.word(k), "address": path.word(SP) + path.word(k)}
        return Cut(scan_frame, scan_word=note).step(state), visited

    def promise(outcome: Outcome) -> z3.BoolRef | bool:
        came, visited = outcome.value
        listed = z3.LShR(bits, k) & 1 == 1
        if isinstance(came, Left):
            # No bit from k on is set: every word that is listed was visited.
            return z3.And(not came.broken, not visited, z3.Implies(z3.UGE(bit, k), z3.LShR(bits, bit) & 1 == 0))
        if not isinstance(came, Again):
            return False
        again = z3.And(came.state["address"].term == SP + (k + 1), came.state["bits"].term == z3.LShR(bits, k + 1))
        fewer = z3.ULT(came.state["bits"].term, z3.LShR(bits, k))
        if visited:
            return z3.And(again, fewer, listed, len(visited) == 1, visited[0] == SP + k)
        return z3.And(again, fewer, z3.Not(listed))

    return Claim(assumptions, always(explore(run, assumptions.values()), promise))


def _null_is_no_root() -> Claim:
    """A listed word is a root unless it is null."""
    held = at(MEMORY, X)

    def run(path: Path) -> list[z3.BitVecRef]:
        roots: list[z3.BitVecRef] = []

        def note(_mem: object, _table: object, externref: Any) -> None:
            roots.append(externref.term)

        with_contracts(scan_word, insert_precise_stack_root=note)(path.mem, path.word(TABLE), path.word(X))
        return roots

    def promise(outcome: Outcome) -> z3.BoolRef:
        if outcome.value:
            return z3.And(len(outcome.value) == 1, outcome.value[0] == held, held != 0)
        return z3.And(held == 0)

    return Claim({}, always(explore(run), promise))


def _frame_is_scanned_by_its_map() -> Claim:
    """A frame is scanned from its stack pointer with the map that the registry has for its pc, and not at all if there is none."""
    found = z3.BitVec("found", 64)
    pc, size = at(MEMORY, FP + RETURN_PC), at(MEMORY, FP + SIZE)
    assumptions = {"the frame lies in memory": z3.And(z3.ULT(FP, SMALL), z3.ULE(size, FP))}

    def run(path: Path) -> tuple[Any, list[tuple[Any, ...]], list[tuple[Any, ...]]]:
        asked: list[tuple[Any, ...]] = []
        scanned: list[tuple[Any, ...]] = []

        def lookup(_mem: object, _registry: object, wanted: Any) -> Any:
            asked.append((wanted.term,))
            return path.word(found)

        def scan(_mem: object, _table: object, entry: Any, sp: Any) -> None:
            scanned.append((entry.term, sp.term))

        sp = with_contracts(walk_frame, lookup_stack_map=lookup, scan_frame=scan)(path.mem, path.word(TABLE), 0, path.word(FP))
        return sp, asked, scanned

    def promise(outcome: Outcome) -> z3.BoolRef:
        sp, asked, scanned = outcome.value
        right = [sp.term == FP - size, z3.BoolVal(bool(asked)) == (pc != 0), z3.BoolVal(bool(scanned)) == z3.And(pc != 0, found != 0)]
        right += [wanted == pc for (wanted,) in asked]
        right += [z3.And(entry == found, lowest == FP - size) for entry, lowest in scanned]
        return z3.And(*right, len(asked) <= 1, len(scanned) <= 1, outcome.mem.wrote_only([]))

    return Claim(assumptions, always(explore(run, assumptions.values()), promise))


def _walk_ends_at_the_canary_only() -> Claim:
    """A walk says that it has found all roots only at a frame that holds the canary, and otherwise goes on to the end of the stack.

    One round of the walk: it says that all roots were found only at the frame that holds the canary.
    """
    canary, last_sp, visited, onward = z3.BitVecs("canary last_sp visited onward", 64)
    assumptions = {"a stack has fewer frames than words": z3.ULT(visited, SMALL)}

    def run(path: Path) -> object:
        def frame(*_arguments: object) -> Any:
            return path.word(SP)

        def step(*_arguments: object) -> Any:
            return path.word(onward)

        state = {"mem": path.mem, "table": 0, "registry": 0, "canary": path.word(canary)}
        state |= {"visited": path.word(visited), "last_sp": path.word(last_sp), "fp": path.word(FP)}
        return Cut(find_precise_stack_roots, walk_frame=frame, walk_step=step).step(state)

    def promise(outcome: Outcome) -> z3.BoolRef | bool:
        came = outcome.value
        holds = z3.And(last_sp != 0, z3.ULE(last_sp, canary), z3.ULE(canary, SP))
        if isinstance(came, Returned):
            return z3.And(FP != 0, holds, came.value == 1)
        if isinstance(came, Left):
            return z3.And(FP == 0, not came.broken)
        state = came.state
        return z3.And(FP != 0, z3.Not(holds), state["last_sp"].term == SP, state["visited"].term == visited + 1, state["fp"].term == onward)

    return Claim(assumptions, always(explore(run, assumptions.values()), promise))


def obligations() -> list[Obligation]:
    """Return the obligations about the stack and its walk."""
    proved: list[tuple[str, Any, tuple[Any, ...]]] = [
        ("push-writes-its-frame-only", _push_writes_its_frame_only, (push_frame,)),
        ("pop-undoes-push", _pop_undoes_push, (pop_frame, push_frame)),
        ("walk-follows-links", _walk_follows_links, (walk_step,)),
        ("scan-begins-at-the-stack-pointer", _scan_begins_at_the_lowest_word, (scan_frame,)),
        ("scan-takes-listed-words-only", _scan_takes_listed_words_only, (scan_frame,)),
        ("null-is-no-root", _null_is_no_root, (scan_word,)),
        ("frame-is-scanned-by-its-own-map", _frame_is_scanned_by_its_map, (walk_frame,)),
        ("walk-ends-at-the-canary-only", _walk_ends_at_the_canary_only, (find_precise_stack_roots,)),
    ]
    return [Obligation(name, SUBJECT, statement(build), Verdict.PROVED, build, functions) for name, build, functions in proved]

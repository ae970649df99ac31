"""References cross between host and Wasm one by one, and no collection ever runs between two of them.

Towards Wasm a reference *moves*: its count goes to the activations table, and Wasm borrows it from there. What is moving
lies in a host frame, and room is made before the first reference leaves it. Towards the host it is cloned.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from impl.activation import read_local
from impl.activations_table import END, NEXT, insert_without_gc, reset_stack_canary, set_stack_canary
from impl.collector import reserve
from impl.errors import Aborted, Panicked
from impl.externref import increment_ref_count
from impl.header import FRAME_POINTER, REGISTRY, TABLE, VERDICT, VERDICT_ABORTED
from impl.instance import release_frame
from impl.stack import ENTRY, EXTRA, HOST, KIND, LINK, RETURN_PC, SCALAR, SIZE, WASM, pop_frame, push_frame

if TYPE_CHECKING:
    from impl.externref import Host
    from impl.header import Memory


def stage(mem: Memory, count: int) -> int:
    """Push a host frame for `count` references in flight, and return the address of the first, null at first."""
    return push_frame(mem, HOST, 0, count, 0)


def room(mem: Memory) -> int:
    """How many references the activations table takes without a collection."""
    table = mem[TABLE]
    return mem[table + END] - mem[table + NEXT]


def move_one(mem: Memory, externref: int) -> None:
    """Move a reference into the activations table, which has room."""
    insert_without_gc(mem, mem[TABLE], externref)


def move_into_table(mem: Memory, host: Host) -> None:
    """Move all references of the youngest frame, a host frame without null words, into the activations table, and pop the frame.

    Raises:
        Panicked: a destructor panicked in the collection that makes room. No reference moved; all are released, and the
            frame is popped.

    Source: the conversion of arguments and results around the seed; mends CVE-2021-39216.
    """
    fp = mem[FRAME_POINTER]
    count = mem[fp + SIZE]
    table = mem[TABLE]
    panicked = 0
    try:
        reserve(mem, host, table, mem[REGISTRY], count)
    except Exception:
        panicked = 1
    if panicked != 0:
        release_frame(mem, host)
        raise Panicked("a destructor panicked before a transfer to Wasm")
    for address in range(fp - count, fp):
        insert_without_gc(mem, table, mem[address])
    pop_frame(mem)


def enter_wasm(mem: Memory, pc: int, instance: int, size: int) -> int:
    """Push the frames of a call from the host: the entry with its canary, and the activation with null locals.

    Args:
        mem: the memory.
        pc: first pc of the activation.
        instance: index of its instance.
        size: words of its frame, the scalar's included.

    Returns:
        The address of its first local.
    """
    canary = push_frame(mem, ENTRY, 0, 1, 0)
    mem[canary + 1 + EXTRA] = set_stack_canary(mem, mem[TABLE], canary)
    sp = push_frame(mem, WASM, pc, size, instance)
    mem[sp] = SCALAR
    return sp + 1


def enter_callee(mem: Memory, pc: int, instance: int, callee_pc: int) -> int:
    """Push the frame of a call from the youngest activation, with as many locals, all null.

    Args:
        mem: the memory.
        pc: the call's safepoint in the caller.
        instance: index of the callee's instance.
        callee_pc: first pc of the callee.

    Returns:
        The address of the callee's first local.
    """
    fp = mem[FRAME_POINTER]
    mem[fp + RETURN_PC] = pc
    sp = push_frame(mem, WASM, callee_pc, mem[fp + SIZE], instance)
    mem[sp] = SCALAR
    return sp + 1


def caller_local(mem: Memory, slot: int) -> int:
    """The reference in a local of the activation that called the youngest one, or 0; borrowed."""
    caller = mem[mem[FRAME_POINTER] + LINK]
    return mem[caller - mem[caller + SIZE] + 1 + slot]


def return_local(mem: Memory, slot: int, destination: int) -> None:
    """Copy a local of the youngest activation to one of its caller, an activation as well. Counts nothing."""
    fp = mem[FRAME_POINTER]
    caller = mem[fp + LINK]
    mem[caller - mem[caller + SIZE] + 1 + destination] = mem[fp - mem[fp + SIZE] + 1 + slot]


def enter_import(mem: Memory, pc: int) -> None:
    """Push the frame of a host function that the youngest activation calls at safepoint `pc`."""
    mem[mem[FRAME_POINTER] + RETURN_PC] = pc
    push_frame(mem, HOST, 0, 0, 0)


def clone_local(mem: Memory, slot: int) -> int:
    """A clone for the host of the reference in a local, or 0."""
    externref = read_local(mem, slot)
    if externref != 0:
        increment_ref_count(mem, externref)
    return externref


def leave_entry(mem: Memory) -> None:
    """Pop the entry frame. If its guard set the canary it resets it."""
    if mem[mem[FRAME_POINTER] + EXTRA] != 0:
        reset_stack_canary(mem, mem[TABLE])
    pop_frame(mem)


def leave_wasm(mem: Memory) -> None:
    """Pop an activation that the host called, and the entry below it."""
    pop_frame(mem)
    leave_entry(mem)


def unwind(mem: Memory) -> None:
    """Pop every frame of the innermost call from host to Wasm: a trap, or a panic that passes through Wasm.

    Raises:
        Aborted: there is no such call, or a destructor runs within it, which has to be left first.
    """
    fp = mem[FRAME_POINTER]
    while mem[fp + KIND] == WASM or mem[fp + KIND] == HOST:
        fp = mem[fp + LINK]
    if mem[fp + KIND] != ENTRY:
        mem[VERDICT] = VERDICT_ABORTED
        raise Aborted("there is no call into Wasm to unwind")
    while mem[FRAME_POINTER] != fp:
        pop_frame(mem)
    leave_entry(mem)

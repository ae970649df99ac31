"""Upstream's oracle: run programs without a model, and count at the end how many values were created and destroyed.

A program is what a lockstep run on the mended code asked of its runtime, call by call. It is done again on a mutant by a host that
knows nothing but two counters. What is missing is what makes the difference: nobody is asked after each step who may die, and
nobody looks at counts, storage or the table's representation.

As in upstream's own fuzzing, a destructor counts and does nothing else. So whether a call makes sense does not depend on when
values die, and a crash is the mutant's doing. Failing allocations and walks that are cut short are more than upstream has.
"""

from __future__ import annotations

import marshal
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from fuzz.choosers import Seeded
from fuzz.driver import Driver
from fuzz.mutants.cell import Outcome
from fuzz.random_engine import plan_of
from fuzz.setup import config_of
from fuzz.watchdog import Hang, time_limit
from impl.errors import Panicked, SimulatedError, Verdict
from impl.runtime import Runtime
from model.limits import SCOPES, Limits
from model.ops import Kind
from model.trace import header, parse

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Call = tuple[str, tuple[Any, ...], int, bool]
"""A method, its arguments, the number of the value that it makes (negative if none), and whether it raised."""
Program = tuple[str, list[Call]]
"""Header of the limits, and the calls."""

RUNS_PER_SECOND: Final = 25
"""The random engine does about so many runs a second in lockstep, on a machine that is shared."""
PROGRAM_SECONDS_MAX: Final = 10.0
_LEAKING: Final = frozenset({Kind.FORGET, Kind.SET_FIELD})
"""Without these every value that was created is destroyed in the end, so counting can judge."""

# Where the arguments of a method are references, and whether that one is a list.
_REFS: Final[dict[str, tuple[int, ...]]] = {
    "new": (1,),
    "clone": (0,),
    "drop": (0,),
    "raw_round_trip": (0,),
    "field": (0,),
    "call_wasm": (2,),
    "host_global_set": (2,),
    "host_table_set": (2,),
    "host_table_grow": (2,),
    "host_table_fill": (2,),
    "instantiate": (2,),
    "return_from_import": (0,),
}
_PLAIN: Final = frozenset(
    {
        *("host_global_get", "host_table_get", "host_table_copy", "host_table_init", "gc", "teardown_instance", "teardown_store"),
        *("register", "unwind", "local_copy", "local_null", "spill", "global_get", "global_set", "table_get", "table_set"),
        *("table_grow", "table_fill", "table_copy", "table_init", "elem_drop", "call_function", "call_import", "return_to_wasm"),
        *("return_to_host", "cut_walk", "fail_allocation", "sweep_order", "calm"),
    }
)
_RAISING: Final = -2
"""In the place of the number of a value whose constructor raises."""


class _Tape:
    """A runtime that writes down what it is asked to do.

    Args:
        runtime: does it.
    """

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.calls: list[Call] = []
        self.numbers: dict[int, int] = {0: -1}
        self.made = 0
        self.under_way = False

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  # any method of a runtime
        method = getattr(self.runtime, name)
        if self.under_way or (name not in _REFS and name not in _PLAIN):
            return method
        return lambda *args: self._do(name, method, args)

    def _do(self, name: str, method: Callable[..., Any], args: tuple[Any, ...]) -> Any:  # noqa: ANN401  # whatever the method returns
        places = _REFS.get(name, ())
        said = tuple(self._numbered(arg) if place in places else _plain(arg) for place, arg in enumerate(args))
        calls = self.calls
        calls.append((name, said, -1, False))
        self.under_way = True
        try:
            result = method(*args)
        except SimulatedError:
            calls[-1] = (name, said, calls[-1][2], True)
            raise
        finally:
            self.under_way = False
        if name == "new":
            self.numbers[result] = self.made
            calls[-1] = (name, said, self.made, False)
            self.made += 1
        return result

    def _numbered(self, arg: Any) -> Any:  # noqa: ANN401  # a reference, or a list of them
        return self.numbers[arg] if isinstance(arg, int) else [self.numbers[ref] for ref in arg]


def _plain(arg: Any) -> Any:  # noqa: ANN401  # a number, or a list of them
    return arg if isinstance(arg, int) else list(arg)


class _Recorder(Driver):
    """A driver that keeps the calls of its runs.

    Args:
        limits: bounds of the runs.
    """

    def __init__(self, limits: Limits) -> None:
        super().__init__(limits, verify=False)
        self.plain = self.runtime

    def program(self, seed: int, operations_max: int) -> Program:
        """Record one run."""
        self.runtime = self.plain
        self.reset()
        tape = _Tape(self.plain)
        self.runtime = tape  # type: ignore[assignment]  # it stands in for one
        self.run(Seeded(seed), operations_max)
        return header(self.limits), tape.calls

    def construct(self, value: int, vtable: int) -> None:
        """See `Driver.construct`; a constructor that raises is part of the program."""
        try:
            super().construct(value, vtable)
        except Panicked:
            tape: Any = self.runtime
            name, said, _made, _raised = tape.calls[-1]
            tape.calls[-1] = (name, said, _RAISING, True)
            raise


def write_pool(path: Path, seconds: float, seed: int) -> int:
    """Record about as many runs as the random engine does in a time; return the number of calls.

    They are the runs that it would do, but for operations that leak on purpose and for what destructors do.

    Args:
        path: file to write.
        seconds: the time.
        seed: of the campaign.
    """
    limits = SCOPES["everything"]
    recorders: dict[Limits, _Recorder] = {}
    count = 0
    with path.open("wb") as file:
        for index in range(max(1, round(seconds * RUNS_PER_SECOND))):
            plan = plan_of(limits, seed, index)
            bounds = replace(plan.limits, kinds=plan.limits.kinds - _LEAKING, destructors=0)
            if bounds not in recorders:
                recorders[bounds] = _Recorder(bounds)
            program = recorders[bounds].program(plan.seed, plan.operations_max)
            count += len(program[1])
            marshal.dump(program, file)
    return count


class _Abandoned(BaseException):
    """The program cannot go on: a call that raised when it was recorded does not, or the reverse. This is no finding."""


class _Counting:
    """A host that counts."""

    runtime: Runtime

    def __init__(self) -> None:
        self.created = 0
        self.destroyed = 0
        self.done = 0
        self.raising = False
        self.abandoned = False
        self.addresses: dict[int, int] = {-1: 0}

    def construct(self, _value: int, _vtable: int) -> None:
        """Count a value."""
        if self.raising:
            raise Panicked
        self.created += 1

    def destroy(self, _externref: int) -> None:
        """Count one less. A fault that was armed for the operation under way is over, as in lockstep."""
        self.destroyed += 1
        self.runtime.calm()

    def perform(self, calls: list[Call]) -> None:
        """Do calls, and ignore what they answer."""
        for name, args, made, raised in calls:
            self.done += 1
            self.raising = made == _RAISING
            places = _REFS.get(name, ())
            method = getattr(self.runtime, name)
            try:
                result = method(*(self._ref(arg) if place in places else arg for place, arg in enumerate(args)))
            except SimulatedError:
                if not raised:
                    raise _Abandoned from None
                continue
            if raised:
                raise _Abandoned
            if made >= 0:
                self.addresses[made] = result

    def _ref(self, arg: Any) -> Any:  # noqa: ANN401  # a number, or a list of them
        try:
            return self.addresses[arg] if isinstance(arg, int) else [self.addresses[number] for number in arg]
        except KeyError:
            # Never made here.
            raise _Abandoned from None


def run_upstream(pool: Path, *, checked: bool) -> Outcome:
    """Do all programs of a pool until one crashes, hangs, or ends with other numbers than it should.

    Args:
        pool: see `write_pool`.
        checked: whether wrong accesses to the memory are named, as by an address sanitiser.
    """
    start = time.monotonic()
    outcome = Outcome(checked=checked)
    programs = abandoned = 0
    runtimes: dict[str, tuple[Runtime, bytes]] = {}
    with pool.open("rb") as file:
        while True:
            try:
                program: Program = marshal.load(file)  # noqa: S302  # our own file
            except EOFError:
                break
            host = _Counting()
            programs += 1
            outcome.verdict, outcome.text = _judge(program, host, runtimes, checked=checked)
            outcome.operations += host.done
            if outcome.verdict:
                outcome.killed, outcome.story, outcome.whole = True, host.done, True
                break
            abandoned += host.abandoned
    if not outcome.killed:
        outcome.text = f"{programs} programs, {abandoned} of them given up half-way"
    outcome.seconds = time.monotonic() - start
    return outcome


def _judge(program: Program, host: _Counting, runtimes: dict[str, tuple[Runtime, bytes]], *, checked: bool) -> tuple[str, str]:
    """Do one program; return the kind of finding and what it says, or two empty words."""
    try:
        runtime, pristine = runtimes.get(program[0]) or _fresh(program[0], host, checked=checked)
        runtimes[program[0]] = (runtime, pristine)
        runtime.restore(pristine)
        runtime.host = host
        host.runtime = runtime
        with time_limit(PROGRAM_SECONDS_MAX):
            host.perform(program[1])
    except _Abandoned:
        host.abandoned = True
        return "", ""
    except Hang as hang:
        return "Hang", str(hang)
    except (Verdict, Exception) as error:  # noqa: BLE001  # whatever a process would die of
        return type(error).__name__, f"crash: {error}"
    if host.created != host.destroyed:
        return "Counted", f"{host.created} values created, {host.destroyed} destroyed"
    return "", ""


def _fresh(text: str, host: _Counting, *, checked: bool) -> tuple[Runtime, bytes]:
    runtime = Runtime(config_of(parse(f"{text}\n").limits), host, checked=checked)
    return runtime, runtime.snapshot()

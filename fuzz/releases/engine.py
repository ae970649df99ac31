"""A released engine, as its parent sees it: programs in, what happened out, whatever becomes of the process in between.

One process runs many programs, one after the other. When a program kills it, the events up to then are kept, the cause is named, and
the next program gets a new process. Memory errors are made visible: freed memory is overwritten, and the C library's checked
allocator is preloaded where there is one.
"""

from __future__ import annotations

import contextlib
import ctypes.util
import functools
import itertools
import json
import os
import resource
import selectors
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, Self

from fuzz.releases.adapter import HARNESS_FAILED
from fuzz.releases.deadline import Deadline, processor_times

ROOT: Final = Path(__file__).resolve().parents[2]
PERTURB: Final = 165
"""Freed bytes become its complement, new ones itself: no address, no plausible count."""
EVENT_BYTES_MAX: Final = 1 << 26
"""A program that says more is stopped."""
STDERR_MAX: Final = 8192
"""Bytes of standard error that are kept, from its end."""
OUT_OF_MEMORY: Final = "memory allocation of "
"""What Rust says before it aborts for want of memory."""
PANIC: Final = "panicked at"
"""What Rust says when the engine's own assertions fail. A panic that a call turns into a trap is in the events instead."""
PANIC_POLLS: Final = 8
"""Silent polls after which a process that has panicked is given up."""
START_SECONDS_MAX: Final = 120.0
END_SECONDS_MAX: Final = 20.0
"""A runner ends at once; one that was stopped from outside does not."""
POLL_SECONDS: Final = 0.25
RETRIES: Final = 3
"""A program is begun anew so often if the process dies before it has begun."""
DATA_BYTES_MAX: Final = 4 << 30
"""Writable private memory of a process. Reserved address space does not count: engines reserve hundreds of gigabytes."""

Event = list[Any]
Action = list[Any]


class RunnerError(Exception):
    """The runner itself failed: the harness or its machine is at fault, not the engine. The message is one line."""


class StartError(RunnerError):
    """A release dies on this machine before it has made an engine. The message is one line."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How programs are run.

    Args:
        program_seconds: processor time that one program may take; a process that is idle for as long is given up.
        programs_max: programs of one process. Engines of some releases keep a few mappings for each store that is gone.
        opt_level: of the compiler: `none`, `speed` or `speed_and_size`.
        checked_allocator: whether the C library's checks are preloaded. Slower, but names the first wrong free.
    """

    program_seconds: float = 10.0
    programs_max: int = 1000
    opt_level: str = "speed"
    checked_allocator: bool = True


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one program.

    Args:
        program: its id.
        events: as `fuzz.releases.program` tells them, in order.
        death: empty if the program ended; else `crash SIGSEGV` or another signal, `abort SIGABRT`, `panic`, `out of memory`, `hang`,
            `deadlock` (all threads sleep for ever), `killed` (from outside), `flood` (of events), or `exit` and the code.
        stderr: what the process wrote to its standard error meanwhile: allocators and engines say there why they abort.
    """

    program: int
    events: list[Event] = field(default_factory=list)
    death: str = ""
    stderr: str = ""


def plain_verdict(program: dict[str, Any], outcome: Outcome) -> str:
    """Return what is wrong whatever the program was meant to do, in a few words; empty if nothing is.

    That is: a death, a value that is no value of the program, one that is destroyed twice or never. Whether a destruction
    was too early, or a value the wrong one, only the program's meaning tells.
    """
    if outcome.death:
        return outcome.death
    alive: set[int] = set()
    making: Action | None = None
    for event in outcome.events:
        if event[0] != "error" and making is not None:
            alive.add(making[1])
        making = None
        if event[0] == "at":
            action = action_at(program, event[1])
            making = action if action is not None and action[0] == "new" else None
        elif event[0] == "got" and any(isinstance(seen, str) for seen in event[2]):
            return f"wrong value at {_words(event[1])}"
        elif event[0] == "destroyed":
            if event[1] not in alive:
                what = "is destroyed twice" if isinstance(event[1], int) else "is destroyed, and is no value"
                return f"value {event[1]} {what}"
            alive.remove(event[1])
    return f"value {min(alive)} is never destroyed" if alive else ""


def action_at(program: dict[str, Any], where: list[Any]) -> Action | None:
    """Return the action of a program at a place, or None: an import's arrival and the final teardown are no actions."""
    part, *numbers, position = where
    actions = program["script"]
    if part == "import":
        actions = program["imports"][numbers[0]] if numbers[0] < len(program.get("imports", [])) else []
    elif part == "destructor":
        actions = program.get("destructors", {}).get(str(numbers[0]), [])
    return actions[position] if 0 <= position < len(actions) else None


def _words(where: list[Any]) -> str:
    return " ".join(map(str, where))


def in_order(events: list[Event]) -> list[Event]:
    """Return events with destructions at one place that follow each other sorted by value.

    A sweep goes through a hash set that the engine seeds anew in each process. Sorted, the same run says the same.
    """
    ordered: list[Event] = []
    for place, group in itertools.groupby(events, lambda event: json.dumps(event[2]) if event[0] == "destroyed" else ""):
        together = list(group)
        if place:
            together.sort(key=lambda event: (isinstance(event[1], str), event[1]))
        ordered += together
    return ordered


class Release:
    """A release under test: its process is started when it is needed, and reaped with `close` or at the end of `with`.

    The process dies with the thread that started it, so one object belongs to one thread.

    Args:
        folder: has the `wasmtime` package (`fuzz.releases.wheels.obtain`).
        settings: how programs are run.
    """

    def __init__(self, folder: Path, settings: Settings | None = None) -> None:
        self.folder = folder
        self.settings = settings or Settings()
        self._process: subprocess.Popen[bytes] | None = None
        self._runs: int | None = None
        self._errors: IO[bytes] | None = None
        self._pending = b""
        self._start = 0
        self._programs = 0
        self._runs_begun = 0
        self._processor = 0.0
        self._environment = environment(checked_allocator=self.settings.checked_allocator)

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Reap the process."""
        self.close()

    def run_all(self, programs: Iterable[dict[str, Any]]) -> Iterator[Outcome]:
        """Run programs in order."""
        for program in programs:
            yield self.run(program)

    def run(self, program: dict[str, Any], seconds: float | None = None, retries: int = RETRIES) -> Outcome:
        """Run one program.

        Args:
            program: as JSON has it.
            seconds: processor time that it may take, if not what the settings say.
            retries: how often to begin anew if the process dies before the program has begun.

        Raises:
            RunnerError: the runner failed, or cannot be started.
        """
        if self._programs >= self.settings.programs_max:
            self._end_process()
        pid = self.started()
        self._programs += 1
        start = self._start = self._errors_size()
        code: int | None = None
        flood = begun = False
        events: list[Event] = []
        line = json.dumps(program, separators=(",", ":")).encode() + b"\n"
        deadline = Deadline(pid, self.settings.program_seconds if seconds is None else seconds)
        # A runner that dies early closes the pipe: what it has said is read below.
        with contextlib.suppress(BrokenPipeError):
            self._input.write(line)
            self._input.flush()
        size = 0
        for text in self._lines(deadline):
            size += len(text)
            event = json.loads(text)
            if event[0] == "end":
                return Outcome(int(program.get("id", 0)), in_order([*events, event]), "", self._said(start))
            if event[0] == "over":
                code, self._runs = event[1], None
                break
            if event[0] == "begin":
                begun = True
            else:
                events.append(event)
            if flood := size > EVENT_BYTES_MAX:
                break
        if code is None:
            self._end_process()
        elif not begun and code != HARNESS_FAILED and retries:
            # What ran before has left a heap on which not even the program could be read. It may be half read, so all begins anew.
            self.close()
            return self.run(program, seconds, retries - 1)
        death = "flood" if flood else deadline.verdict if code is None else self._cause(code)
        said = self._said(start)
        if PANIC in said and not flood:
            death = "panic"
        elif death.startswith("abort") and OUT_OF_MEMORY in said:
            death = "out of memory"
        return Outcome(int(program.get("id", 0)), in_order(events), death, said)

    def renew(self) -> None:
        """Let the next program run in a process that has run nothing before, forked from the same engine."""
        self._end_process()

    @property
    def processor_seconds(self) -> float:
        """Processor time that the processes of this release have taken so far; of those that are gone, to the hundredth."""
        if self._process is None:
            return self._processor
        running = sum(processor_times(self._process.pid)) + (sum(processor_times(self._runs)[:2]) if self._runs else 0.0)
        return self._processor + running

    def close(self) -> None:
        """End the processes, if there are any, and wait for them."""
        self._processor = self.processor_seconds
        process, self._process = self._process, None
        if process is not None:
            # The runner waits for the process that it has forked, and then finds that nobody will ask for more.
            _close(process.stdin)
            self._kill()
            try:
                process.wait(END_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            _close(process.stdout)
        self._runs = None
        if self._errors is not None:
            self._errors.close()
            self._errors = None

    def started(self) -> int:
        """Return the id of the process that runs programs, after starting what there is not yet.

        Raises:
            StartError: the release does not start on this machine.
            RunnerError: the runner does not.
        """
        if self._process is None or self._process.poll() is not None:
            self.close()
            self._start_runner(self._new_errors())
        if self._runs is None:
            deadline = Deadline(self._runner.pid, START_SECONDS_MAX, may_sleep=True)
            for text in self._lines(deadline):
                event = json.loads(text)
                if event[0] == "ready":
                    self._runs, self._programs = event[1], 0
                    self._runs_begun += 1
                    break
            else:
                raise self._failed("it does not start in time" if deadline.passed else "it does not say why")
        if self._runs is None:
            raise self._failed("it says nothing")
        return self._runs

    def _new_errors(self) -> IO[bytes]:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        self._pending, self._start, self._runs_begun = b"", 0, 0
        return self._errors

    def _start_runner(self, errors: IO[bytes]) -> None:
        command = [sys.executable, "-P", "-m", "fuzz.releases.runner", str(self.folder), "--opt-level", self.settings.opt_level]
        self._process = subprocess.Popen(  # noqa: S603
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, env=self._environment, cwd=self.folder
        )
        limits = ((resource.RLIMIT_CORE, 0), (resource.RLIMIT_DATA, DATA_BYTES_MAX))
        for which, limit in limits:
            with contextlib.suppress(ProcessLookupError):
                resource.prlimit(self._process.pid, which, (limit, limit))

    @property
    def _runner(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RunnerError("the runner has not been started")
        return self._process

    @property
    def _input(self) -> IO[bytes]:
        return _pipe(self._runner.stdin)

    def _failed(self, cause: str) -> RunnerError:
        """Return what to raise when the runner has failed, and end it."""
        said = self._said(0).strip().splitlines()
        panics = [line for line in said if PANIC in line]
        code = None if self._process is None else self._process.poll()
        self.close()
        name = self.folder.name
        if code is not None and code < 0 and self._runs_begun == 0:
            return StartError(f"wasmtime {name} does not start on this machine: {[*panics, *said[-1:], signal.Signals(-code).name][0]}")
        return RunnerError(f"the runner of {name} failed: {said[-1] if said else cause}")

    def _kill(self) -> None:
        # The runner has not reaped it yet, or we would know; so this id is still its own.
        if self._runs is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._runs, signal.SIGKILL)

    def _end_process(self) -> None:
        """End the process that runs programs; the runner forks another one."""
        if self._runs is None:
            return
        self._kill()
        for text in self._lines(Deadline(self._runner.pid, END_SECONDS_MAX, may_sleep=True)):
            if json.loads(text)[0] == "over":
                self._runs = None
                return
        self.close()

    def _lines(self, deadline: Deadline) -> Iterator[bytes]:
        """Whole lines of standard output, until the time is over. Raises `RunnerError` where it ends: the runner itself runs no program."""
        output = _pipe(self._runner.stdout)
        silent = 0
        with selectors.DefaultSelector() as selector:
            selector.register(output, selectors.EVENT_READ)
            while True:
                line, newline, rest = self._pending.partition(b"\n")
                if newline:
                    self._pending = rest
                    yield line
                    continue
                if not selector.select(min(POLL_SECONDS, deadline.asleep / 2)):
                    silent += 1
                    # What a panic that unwinds through C leaves behind may do anything.
                    if deadline.is_over() or (silent > PANIC_POLLS and PANIC in self._said(self._start)):
                        return
                    continue
                silent = 0
                data = os.read(output.fileno(), 1 << 16)
                if not data:
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        self._runner.wait(END_SECONDS_MAX)
                    raise self._failed("it does not say why")
                self._pending += data

    def _cause(self, code: int) -> str:
        """How a process ended that has an exit code, as `subprocess` has it."""
        if code == HARNESS_FAILED:
            raise self._failed("it does not say why")
        if code >= 0:
            return f"exit {code}"
        name = signal.Signals(-code).name
        # No engine sends itself that.
        if name == "SIGKILL":
            return "killed"
        return f"{'abort' if name == 'SIGABRT' else 'crash'} {name}"

    def _errors_size(self) -> int:
        return os.fstat(self._errors.fileno()).st_size if self._errors else 0

    def _said(self, start: int) -> str:
        """What was written to standard error since it had `start` bytes."""
        if self._errors is None:
            return ""
        size = self._errors_size()
        begin = max(start, size - STDERR_MAX)
        return os.pread(self._errors.fileno(), size - begin, begin).decode("utf-8", "replace")


def environment(*, checked_allocator: bool) -> dict[str, str]:
    """Return the environment of a runner: nothing from outside but the path, and an allocator that shows errors."""
    variables = {
        "PATH": os.environ.get("PATH", os.defpath),
        "PYTHONPATH": str(ROOT),
        "PYTHONNOUSERSITE": "1",
        "PYTHONHASHSEED": "0",
        "RUST_BACKTRACE": "0",
        "MALLOC_PERTURB_": str(PERTURB),
    }
    # Since glibc 2.34 the checks are in a library of their own.
    library = debug_allocator() if checked_allocator else ""
    if library:
        variables |= {"LD_PRELOAD": library, "MALLOC_CHECK_": "3"}
    return variables


@functools.cache
def debug_allocator() -> str:
    """Return the C library's checked allocator, or nothing where there is none. Its search starts a process, so it is done once."""
    return ctypes.util.find_library("c_malloc_debug") or ""


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    if pipe is None:
        raise RunnerError("the runner has no pipes")
    return pipe


def _close(pipe: IO[bytes] | None) -> None:
    if pipe is not None:
        with contextlib.suppress(OSError):
            pipe.close()

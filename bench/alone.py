"""Each side runs a recorded run by itself, with nothing around it but a loop over prepared calls."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

from bench.recording import BEGINS, CONSTRUCTED, DESTROYED, DIES, FINISHES, Chain, comparable
from fuzz.setup import config_of
from impl.errors import Panicked, SimulatedError, Verdict
from impl.runtime import Runtime
from model.books import destruction_begins, destruction_ends
from model.limits import FULL
from model.ops import BY_KIND, Kind
from model.state import initial
from model.step import begin, expects_panic, finish

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any

    from bench.recording import Recording
    from model.limits import Limits

    Call = tuple[Callable[..., object] | None, Any]

_RELEASES: Final = tuple(spec.can_release for spec in BY_KIND)


class ReplayMismatch(Exception):
    """A replay did not end as the run that it replays; its speed would mean nothing."""


class ImplAlone:
    """A runtime on raw memory and its host, which does what the recorded host did.

    Args:
        limits: bounds of the runs.
        recordings: the runs.
    """

    def __init__(self, limits: Limits, recordings: Sequence[Recording]) -> None:
        self.runtime = Runtime(config_of(limits), self)
        self._memory = self.runtime.memory
        self._pristine = self.runtime.snapshot()
        self._recordings = recordings
        self._programs = [[self._bound(name, args) for name, args in recording.events] for recording in recordings]
        self._calls: Iterator[Call] = iter(())

    def _bound(self, name: str, args: object) -> Call:
        return (None if name in {CONSTRUCTED, DESTROYED} else getattr(self.runtime, name), args)

    def play(self) -> None:
        """Do every run."""
        restore, pristine = self.runtime.restore, self._pristine
        for program in self._programs:
            restore(pristine)
            self._calls = calls = iter(program)
            for method, args in calls:
                try:  # noqa: SIM105  # a context manager costs more than the call
                    method(*args)  # type: ignore[misc]  # the host consumes the markers
                except SimulatedError:
                    pass

    def construct(self, value: int, vtable: int) -> None:
        """Write the words that were written. Raise Panicked if the constructor did."""
        del value, vtable
        writes = next(self._calls)[1]
        if writes is None:
            raise Panicked
        memory = self._memory
        for index, word in writes:
            memory[index] = word

    def destroy(self, externref: int) -> None:
        """Make the calls that the destructor made. Raise Panicked if it did."""
        del externref
        for method, args in self._calls:
            if method is None:
                if args:
                    raise Panicked
                return
            try:  # noqa: SIM105  # as above
                method(*args)
            except SimulatedError:
                pass

    def verify(self) -> None:
        """Do every run and compare the memory with the recorded one after each top-level call, and at the end.

        Raises:
            ReplayMismatch: they differ.
        """
        for program, recording in zip(self._programs, self._recordings, strict=True):
            try:
                digest = self._digest(program)
            except (Verdict, Exception) as error:
                raise ReplayMismatch(f"the implementation alone failed where the recorded run did not: {error!r}") from error
            if digest != recording.memory_digest:
                raise ReplayMismatch("the implementation alone went through other states than the recorded run")
            self._compare(recording)

    def _digest(self, program: list[Call]) -> str:
        """Do one run; return the digest over the memory after each top-level call."""
        self.runtime.restore(self._pristine)
        chain = Chain()
        self._calls = calls = iter(program)
        for method, args in calls:
            if method is None:
                raise ReplayMismatch("the host was not called where it was in the recorded run")
            with contextlib.suppress(SimulatedError):
                method(*args)
            chain.memory(self.runtime.snapshot())
        return chain.hexdigest()

    def verify_end(self) -> None:
        """Compare the memory after the last run of `play` with the recorded one.

        Raises:
            ReplayMismatch: they differ.
        """
        self._compare(self._recordings[-1])

    def _compare(self, recording: Recording) -> None:
        if self.runtime.snapshot() != recording.memory_end:
            raise ReplayMismatch("the implementation alone ended in another state than the recorded run")


class ModelAlone:
    """The model's state and the calls that the driver made of its functions.

    Args:
        limits: bounds of the runs.
        recordings: the runs.
    """

    def __init__(self, limits: Limits, recordings: Sequence[Recording]) -> None:
        self.limits = limits
        self._recordings = recordings
        self._scripts = [
            [[(step.code, step.row, step.number, step.panicked) for step in steps] for steps in recording.script]
            for recording in recordings
        ]
        self.state = initial(limits)

    def play(self) -> None:
        """Do every run."""
        for script in self._scripts:
            self.state = initial(self.limits)
            for steps in script:
                self._do(steps)

    def verify(self) -> None:
        """Do every run and compare the state with the recorded one after each top-level operation, and at the end.

        Raises:
            ReplayMismatch: they differ.
        """
        for script, recording in zip(self._scripts, self._recordings, strict=True):
            self.state = initial(self.limits)
            chain = Chain()
            for steps in script:
                self._do(steps)
                chain.state(self.state)
            if chain.hexdigest() != recording.state_digest or comparable(self.state) != recording.state_end:
                raise ReplayMismatch("the model alone went through other states than the recorded run")

    def _do(self, steps: list[tuple[int, tuple[int, ...], int, bool]]) -> None:
        state, limits = self.state, self.limits
        results: list[int] = []
        acting: list[bool] = []
        for code, row, number, panicked in steps:
            if code == BEGINS:
                state[FULL] = number
                result = begin(state, limits, row)
                if row[0] == Kind.END:
                    finish(state, limits, row, result, panicked=False)
                else:
                    results.append(result)
            elif code == FINISHES:
                raised = expects_panic(state, limits) if _RELEASES[row[0]] else False
                finish(state, limits, row, results.pop(), panicked=raised)
            elif code == DIES:
                acting.append(destruction_begins(state, limits, number))
            else:
                destruction_ends(state, limits, number, acted=acting.pop(), panicked=panicked)

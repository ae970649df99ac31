"""Verdicts are no `Exception`, and Hypothesis shrinks nothing else: here they are told to it as one."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

from hypothesis.stateful import RuleBasedStateMachine

from fuzz.driver import Divergence
from impl.errors import Verdict

F = TypeVar("F", bound=Callable[..., None])


class Finding(Exception):
    """A state machine found a disagreement."""


class DivergenceFound(Finding):
    """The whole runtime diverged from the model.

    Args:
        divergence: the disagreement, with its operations.
        text: the trace of the operations that were chosen.
    """

    def __init__(self, divergence: Divergence, text: str) -> None:
        super().__init__(str(divergence))
        self.divergence = divergence
        self.text = text


def agree(what: str, expected: object, actual: object) -> None:
    """Compare what the reference says with what the component says.

    Raises:
        Finding: they differ.
    """
    if expected != actual:
        raise Finding(f"{what}: the reference says {expected}, the implementation says {actual}")


class Component(RuleBasedStateMachine):
    """A machine whose last check, `end`, is not made when the example has failed already."""

    failed = False

    def end(self) -> None:
        """Check what must hold when the example is over."""

    def teardown(self) -> None:
        """Check the end, unless it would only say again that something is wrong."""
        if not self.failed:
            self.end()


def judged(function: F) -> F:
    """Let the verdicts of a component's rule be findings."""

    @functools.wraps(function)
    def wrapper(self: Component, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401  # whatever the rule is given
        found: Verdict | None = None
        failed, self.failed = self.failed, True
        try:
            function(self, *args, **kwargs)
            self.failed = failed
        except Verdict as verdict:
            found = verdict
        # Raised outside the handler: Hypothesis tells failures apart by what they come from, and shrinks each alone.
        if found is not None:
            raise Finding(f"{type(found).__name__}: {found}")

    return cast("F", wrapper)

"""The whole runtime in lockstep with the model, one rule for each kind of operation that a context can begin with.

The rules are made from the vocabulary's table, so a new kind has one. A rule's precondition is that the kind is possible
now, and its operands are drawn by `choose_operands`, as in every engine. While a destructor runs, the same example goes on
to draw what it does; an example in which destructors do nothing is the simpler one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Final, Protocol, cast

from hypothesis import note
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from fuzz.driver import Divergence, Driver, Outcome
from fuzz.machines.findings import DivergenceFound
from fuzz.watchdog import Hang, time_limit
from model.choose import choose_operands, kinds_mask, kinds_possible
from model.limits import SCOPES, Limits
from model.ops import SPECS, Context, Kind, Row
from model.state import State
from model.trace import Trace, format_trace

STEP_SECONDS_MAX: Final = 5.0
"""One operation of a run takes a millisecond; one that takes so long would never end."""


class Record(Protocol):
    """Who wants to know what the examples did. Called for each example, those of shrinking included."""

    def begins(self) -> None:
        """Hear of the next example. May raise a `BaseException` that is no `Exception`, to leave Hypothesis at once."""

    def ended(self, outcome: Outcome, divergence: Divergence | None) -> None:
        """Hear what it did, even if Hypothesis cut it short, and what it found."""


class _Drawing:
    """A chooser that draws its answers from Hypothesis."""

    __slots__ = ("draw",)

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw

    def choose(self, count: int) -> int:
        return self.draw(_below(count))


_BELOW: Final[dict[int, st.SearchStrategy[int]]] = {}


def _below(count: int) -> st.SearchStrategy[int]:
    """Return the strategy of integers below `count`; making one costs more than a draw."""
    strategy = _BELOW.get(count)
    if strategy is None:
        strategy = _BELOW[count] = st.integers(0, count - 1)
    return strategy


@st.composite
def _rows_of(draw: st.DrawFn, kind: Kind) -> Row:
    """Draw the operands of a kind that is possible now."""
    machine: LockstepMachine = draw(st.runner())
    return choose_operands(kind, machine.driver.state, machine.limits, _Drawing(draw))


@st.composite
def _rows(draw: st.DrawFn) -> Row:
    """Draw any operation that is possible now, the end of a destructor being the simplest."""
    machine: LockstepMachine = draw(st.runner())
    state, limits = machine.driver.state, machine.limits
    kinds = sorted(kinds_possible(state, limits), key=Kind.END.__ne__)
    chooser = _Drawing(draw)
    kind = kinds[chooser.choose(len(kinds))] if len(kinds) > 1 else kinds[0]
    return choose_operands(kind, state, limits, chooser)


_ANY_ROW: Final = _rows()


class LockstepMachine(RuleBasedStateMachine):
    """A driver whose operations come from outside; `machine` adds the rules.

    Attributes:
        limits: bounds of a run.
        checked: whether to use the checked memory.
        record: who hears of the examples, if anybody.
        spare: the driver of the last example, to be reset for the next one; a disagreement leaves it in pieces.
    """

    limits: ClassVar[Limits]
    checked: ClassVar[bool]
    record: ClassVar[Record | None]
    spare: ClassVar[Driver | None] = None

    def __init__(self) -> None:
        super().__init__()
        kind = type(self)
        if kind.record is not None:
            kind.record.begins()
        self.driver = kind.spare or Driver(kind.limits, checked=kind.checked)
        kind.spare = self.driver
        self.driver.reset()
        self.in_operation = False
        self.told = False
        self.look()

    def look(self) -> None:
        """Note which kinds are possible now, as a mask."""
        self.possible = kinds_mask(self.driver.state, self.limits)

    @initialize(data=st.data())
    def start(self, data: st.DataObject) -> None:
        """Keep what destructors draw their operations from, in the middle of others."""

        def draw(_state: State, _limits: Limits) -> Row:
            row: Row = data.draw(_ANY_ROW)
            return row

        self.source = draw

    def operate(self, row: Row) -> None:
        """Do one operation.

        Raises:
            DivergenceFound: the two sides disagree.
        """
        self._guard(lambda: self.driver.step(row, self.source))
        self.look()

    def teardown(self) -> None:
        """Let go of everything, unless an operation is still under way: then Hypothesis has given the example up."""
        if self.in_operation:
            self._tell(None)
            return
        self._guard(lambda: cast("None", self.driver.finale()))
        self._tell(None)

    def _guard(self, work: Callable[[], None]) -> None:
        """Do some work of the driver; raise what it found outside the handlers, so that nothing but it is shrunk."""
        found: Divergence | None = None
        self.in_operation = True
        try:
            with time_limit(STEP_SECONDS_MAX):
                work()
            self.in_operation = False
        except Divergence as divergence:
            found = divergence
        except Hang as hang:
            found = self.driver.divergence("Hang", str(hang))
        if found is not None:
            type(self).spare = None
            self._tell(found)
            text = format_trace(Trace(self.limits, found.rows[: found.chosen]), found.depths)
            note(text)
            raise DivergenceFound(found, text)

    def _tell(self, found: Divergence | None) -> None:
        record = type(self).record
        if record is not None and not self.told:
            record.ended(self.driver.outcome(), found)
            self.told = True


def rule_name(kind: Kind) -> str:
    """Return the name of a kind's rule; `return` alone would be no name."""
    return f"do_{SPECS[kind].text}"


def _rule_of(kind: Kind) -> Callable[..., None]:
    """Make the rule of a kind, as the decorators of Hypothesis do it."""

    def is_possible(machine: LockstepMachine) -> bool:
        return machine.possible >> kind & 1 != 0

    def operation(self: LockstepMachine, row: Row) -> None:
        self.operate(row)

    operation.__name__ = operation.__qualname__ = rule_name(kind)
    made: Callable[..., None] = precondition(is_possible)(rule(row=_rows_of(kind))(operation))
    return made


@precondition(lambda machine: not machine.possible)
@rule()
def _nothing(_self: LockstepMachine) -> None:
    """Nothing is possible under these limits; Hypothesis wants a rule all the same."""


RULES: Final = {kind: _rule_of(kind) for kind, spec in SPECS.items() if spec.contexts != (Context.DESTRUCTOR,)}
"""Every kind but those that only destructors do, which are always in the middle of an operation."""


def machine(limits: Limits, *, checked: bool = True, record: Record | None = None) -> type[LockstepMachine]:
    """Return the state machine under given limits, with the rules that they enable; see `LockstepMachine`.

    A rule that can never be possible would slow each step down: Hypothesis looks for a possible one by trial.
    """
    rules = {rule_name(kind): made for kind, made in RULES.items() if kind in limits.kinds or SPECS[kind].closing}
    body = {"limits": limits, "checked": checked, "record": record, "do_nothing": _nothing, **rules}
    return cast("type[LockstepMachine]", type("RuntimeMachine", (LockstepMachine,), body))


RuntimeMachine: Final = machine(SCOPES["everything"])
"""The state machine of the widest scope."""

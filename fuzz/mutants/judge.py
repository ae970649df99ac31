"""Whether anything notices that this process has another `impl`: kept traces, unit tests, small searches, a campaign, in this order.

What is quick comes first, for most changes are noticed at once. Traces and unit tests take a second of the processor at most; they are
one half, so that a run can try them on every change before it spends ten times that on each of the few that are left. The process has
imported nothing of `impl` before.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Final

from fuzz.choosers import Seeded
from fuzz.mutants.catalogue import ROOT
from model.limits import SCOPES
from model.trace import SIZE_MAX_BYTES, parse, parse_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

    from model.trace import Trace

TRACES: Final = ROOT / "tests" / "traces"
TESTS: Final = ROOT / "tests" / "impl"
_TRACE_BYTES_MAX: Final = 10_000
"""Longer traces are thousands of times the same."""
_SCOPES: Final = ("nesting", "segments", "globals", "transfers", "copies", "faults")
"""The scopes of exhaustive search that take a second at most."""
_SEARCH_SECONDS: Final = 60.0
# Nobody reads what a failed assertion says here, and rewriting them costs more than running them.
_PYTEST: Final = (
    *("-x", "-q", "--no-header", "--tb=no", "--assert=plain"),
    *("-p", "no:cacheprovider", "-p", "no:xdist", "-o", "addopts=--import-mode=importlib"),
)
_INPUTS: Final = 400
_INPUT_BYTES: Final = 256
_WIDE: Final = tuple(f"test_{name}.py" for name in ("runtime", "invariants", "collector", "instance", "externref", "hash_set", "stack"))
"""Unit tests that are quick, most of which use several modules."""


class Noticed(BaseException):
    """Something noticed.

    Args:
        stage: what.
        text: what it says.
    """

    def __init__(self, stage: str, text: str) -> None:
        super().__init__(stage, text)
        self.stage = stage
        self.text = text


def traces() -> list[Trace]:
    """Return the kept traces that are short."""
    paths = sorted(path for path in TRACES.rglob("*.drc") if path.stat().st_size < min(_TRACE_BYTES_MAX, SIZE_MAX_BYTES))
    return [parse_bytes(path.read_bytes()) for path in paths]


def judge(module: str, kept: list[Trace], seconds: float, *, quick: bool) -> tuple[str, str]:
    """Return what notices the change, and what it says; two empty words if nothing does.

    Args:
        module: of `impl`, which is changed.
        kept: traces to replay.
        seconds: of the campaign.
        quick: whether to do the quick half, or the slow one.
    """
    quick_stages: tuple[tuple[str, Callable[[], None]], ...] = (
        ("traces", lambda: _replay(kept)),
        ("unit tests", lambda: _tests(f"test_{module}.py")),
        ("registry", lambda: _registry(module)),
        ("unit tests", lambda: _tests(*(name for name in _WIDE if name != f"test_{module}.py"))),
    )
    slow_stages: tuple[tuple[str, Callable[[], None]], ...] = (
        ("random", lambda: _campaign(seconds)),
        ("check", _search),
    )
    stages = quick_stages if quick else slow_stages
    for stage, run in stages:
        try:
            run()
        except Noticed as noticed:
            return stage, noticed.text
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # noqa: BLE001  # whatever it is, the code as it is does not raise it
            return stage, f"{type(error).__name__}: {error}"
    return "", ""


def replay(text: str, *, checked: bool) -> tuple[str, str]:
    """Replay a trace; return the verdict and what it says, or two empty words if both sides agree to its end."""
    try:
        from fuzz.driver import Driver
        from fuzz.shrink import diverges

        trace = parse(text)
        found = diverges(Driver(trace.limits, checked=checked), trace.rows)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # noqa: BLE001  # whatever it is, the code as it is does not raise it
        return type(error).__name__, str(error)
    return ("", "") if found is None else (found.verdict, found.text)


def _replay(kept: list[Trace]) -> None:
    from fuzz.driver import Driver
    from fuzz.shrink import diverges

    for trace in kept:
        for checked in (False, True):
            found = diverges(Driver(trace.limits, checked=checked), trace.rows)
            if found is not None:
                raise Noticed("traces", str(found))


def _search() -> None:
    from fuzz.check_scopes import CHECK_SCOPES
    from fuzz.explore import Bounds, Explorer, Search
    from fuzz.states import JointStates

    for scope in _SCOPES:
        explorer = Explorer(JointStates(CHECK_SCOPES[scope], symmetry=True), Search(), Bounds(seconds=_SEARCH_SECONDS))
        explorer.run()
        if explorer.violation is not None:
            raise Noticed("check", f"{scope}: {explorer.violation.divergence}")


def _tests(*names: str) -> None:
    import pytest

    paths = [str(TESTS / name) for name in names if (TESTS / name).is_file()]
    if not paths:
        return
    code = pytest.main([*_PYTEST, f"--rootdir={ROOT}", *paths])
    if code != pytest.ExitCode.OK:
        raise Noticed("unit tests", f"{code!r}")


def _registry(module: str) -> None:
    if module != "stack_maps":
        return
    from fuzz.target_support import RegistryTarget

    with contextlib.suppress(OSError):
        target = RegistryTarget(["-artifact_prefix=/nonexistent/"])
        dice = Seeded(0)
        for _ in range(_INPUTS):
            target(bytes(dice.choose(256) for _ in range(_INPUT_BYTES)))
        return
    # It wanted to write an artifact.
    raise Noticed("registry", "the registry disagrees with a linear scan")


def _campaign(seconds: float) -> None:
    from fuzz.random_engine import run_random

    end = time.monotonic() + seconds
    for scope, share in (("everything", 0.6), ("faults", 0.5), ("registry", 0.5), ("storage", 1.0)):
        found = run_random(SCOPES[scope], seconds=max(0.1, (end - time.monotonic()) * share), runs=None, seed=0).finding
        if found is not None:
            raise Noticed("random", str(found))

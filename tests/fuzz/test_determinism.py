"""A run is a function of its choices: in one process, in another, and when something hidden takes part this is noticed."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fuzz.choosers import Seeded
from fuzz.driver import Divergence, Driver
from fuzz.twice import HiddenState, run_twice
from impl.runtime import Runtime
from model.limits import SCOPES

ROOT = Path(__file__).resolve().parent.parent.parent
SCRIPT = """\
import hashlib
from fuzz.choosers import Recording, Seeded
from fuzz.driver import Driver
from model.limits import SCOPES
for name, limits in SCOPES.items():
    driver = Driver(limits, checked=True)
    recording = Recording(Seeded(17))
    outcome = driver.run(recording, 120)
    said = repr((outcome.rows, outcome.depths, outcome.counts, outcome.seen, recording.counts, driver.state)).encode()
    print(name, outcome.steps, hashlib.sha256(said + driver.runtime.snapshot()).hexdigest())
"""


def output(hash_seed: str, *options: str) -> list[str]:
    """What the script prints in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-B", *options, "-c", SCRIPT],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return done.stdout.splitlines()


def test_processes_agree_whatever_their_hash_seed() -> None:
    """Rows, choices, coverage, and the last word of both final states."""
    first = output("0")
    assert [line.split()[0] for line in first] == list(SCOPES)
    assert output("1") == first
    assert output("random", "-O") == first


@pytest.mark.parametrize("scope", SCOPES)
def test_a_run_that_is_done_twice_is_the_same_run(scope: str) -> None:
    driver = Driver(SCOPES[scope])
    outcome = run_twice(driver, Seeded(23), 120)
    assert outcome == Driver(SCOPES[scope]).run(Seeded(23), 120)


def test_state_that_a_reset_forgets_shows_in_the_alternatives(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here the limits change behind the run's back: more alternatives the second time."""
    driver = Driver(SCOPES["calls"])
    reset = driver.reset
    resets = [0]

    def forgetful() -> None:
        reset()
        resets[0] += 1
        if resets[0] == 2:
            driver.state[:] = changed

    driver.perform((0, 0))
    changed = list(driver.state)
    monkeypatch.setattr(driver, "reset", forgetful)
    with pytest.raises(HiddenState) as raised:
        run_twice(driver, Seeded(1), 50)
    assert str(raised.value).startswith("choice 0, for operation 0 or an operand of it, at the start: ")


def test_a_counter_in_the_implementation_shows_in_the_arena(monkeypatch: pytest.MonkeyPatch) -> None:
    """A word of the arena that counts the collections of the process, not of the run."""
    collections = [0]
    gc = Runtime.gc

    def counting(self: Runtime) -> None:
        collections[0] += 1
        self.memory[self.memory_of_nobody] = collections[0]  # type: ignore[attr-defined]  # planted below
        gc(self)

    driver = Driver(SCOPES["calls"], verify=False)
    monkeypatch.setattr(Runtime, "memory_of_nobody", len(driver.runtime.memory) - 1, raising=False)
    monkeypatch.setattr(Runtime, "gc", counting)
    with pytest.raises(HiddenState) as raised:
        run_twice(driver, Seeded(1), 50)
    words = len(driver.runtime.memory)
    assert collections[0] > 0
    # The counter is seen by the comparison with the beginning, and its two values differ.
    assert str(raised.value).startswith("the first run ends with 'Disagreement: nothing is left, but word " + str(words - 1))


def test_a_chooser_that_is_not_asked_shows_in_the_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    """A source of its own in the driver: the layout follows the number of the run, and nobody was asked."""
    driver = Driver(SCOPES["counting"])
    perform, reset = driver.perform, driver.reset
    runs = [0]

    def fickle(row: tuple[int, ...]) -> None:
        perform((0, runs[0] % 2, *row[2:]) if row[0] == 0 else row)

    def counting() -> None:
        runs[0] += 1
        reset()

    monkeypatch.setattr(driver, "perform", fickle)
    monkeypatch.setattr(driver, "reset", counting)
    with pytest.raises(HiddenState, match=r"^operation \d+: 'new layout=[01].*' in the first run, 'new layout=[01].*' in the second$"):
        run_twice(driver, Seeded(2), 31)


def test_a_second_run_that_ends_early_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = Driver(SCOPES["calls"])
    run = driver.run
    bounds = [50, 49]
    monkeypatch.setattr(driver, "run", lambda chooser, _bound: run(chooser, bounds.pop(0)))
    with pytest.raises(HiddenState, match=r"^operation 49: '.*' in the first run, '.*' in the second$"):
        run_twice(driver, Seeded(3))


def test_a_divergence_that_repeats_is_a_divergence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("impl.collector.scan_word", lambda mem, table, address: None)
    limits = SCOPES["calls"]
    single: Divergence | None = None
    seed = 0
    while single is None:
        seed += 1
        try:
            Driver(limits).run(Seeded(seed), 200)
        except Divergence as found:
            single = found
    with pytest.raises(Divergence) as raised:
        run_twice(Driver(limits), Seeded(seed), 200)
    assert (raised.value.verdict, raised.value.text, raised.value.rows) == (single.verdict, single.text, single.rows)


def test_a_divergence_that_does_not_repeat_is_hidden_state(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = Driver(SCOPES["calls"])
    found: list[Any] = []

    def once(row: tuple[int, ...], _result: int) -> None:
        if len(driver.rows) == 10 and not found:
            found.append(row)
            driver.diverge("once")

    reset = driver.reset

    def hook() -> None:
        reset()
        driver.on_step = once

    monkeypatch.setattr(driver, "reset", hook)
    with pytest.raises(HiddenState, match=r"^operation 10: 'nothing' in the first run"):
        run_twice(driver, Seeded(4), 40)

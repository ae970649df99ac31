"""A change of the text is found by the obligation about it, and a text that is not changed by none."""

from __future__ import annotations

from dataclasses import replace

import pytest

from proofs.changes import ROOT, Change, changes, main, try_change

TEXT = (ROOT / "impl" / "stack_maps.py").read_text(encoding="utf-8")
ALL = list(changes("stack_maps", TEXT, frozenset()))


def test_every_operator_comparison_and_constant_is_changed() -> None:
    small = "A: Final = 1\n\ndef f(a, b):\n    if a < b and b != 0:\n        a += 2\n    return a >> b\n"
    made = {(change.function, change.what) for change in changes("m", small, frozenset())}
    assert made == {
        ("", "1 becomes 2"),
        ("", "1 becomes 0"),
        ("f", "a >> b: RShift becomes LShift"),
        ("f", "a < b and b != 0: And becomes Or"),
        ("f", "a += 2: Add becomes Sub"),
        ("f", "a < b: Lt becomes LtE"),
        ("f", "a < b: Lt becomes Gt"),
        ("f", "b != 0: NotEq becomes Eq"),
        ("f", "2 becomes 3"),
        ("f", "2 becomes 1"),
        ("f", "0 becomes 1"),
    }
    assert len(ALL) > 200
    assert len({change.text for change in ALL}) == len(ALL)
    assert TEXT not in {change.text for change in ALL}


def find(function: str, what: str) -> Change:
    (found,) = [change for change in ALL if change.function == function and change.what == what]
    return found


def test_a_change_is_noticed_and_none_is_not() -> None:
    change = find("share_a_pc", "start < other_end: Lt becomes LtE")
    assert try_change(change) == "sharing-a-pc-is-exact"
    assert try_change(replace(change, text=TEXT)) == ""


def test_a_text_that_cannot_be_proved_at_all_is_noticed() -> None:
    change = find("share_a_pc", "start < other_end: Lt becomes LtE")
    assert try_change(replace(change, text="raise RuntimeError\n")) == "RuntimeError while the proofs are built"


def test_the_survivors_are_printed_and_counted(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["layout", "--every", "49"]) == 0
    out, err = capsys.readouterr()
    tried = err.count("\n") - 1
    assert out.splitlines()[-1].startswith(f"{tried} changes, ")
    assert tried >= 1

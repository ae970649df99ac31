"""A change of the text is found by the obligation about it, and a text that is not changed by none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

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


def test_only_a_function_or_what_survived_before_is_tried_again(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["layout", "--function", "words", "--every", "4"]) == 0
    out, err = capsys.readouterr()
    assert out == "2 changes, 2 noticed, 0 survive\n"
    assert all(" words: " in line for line in err.splitlines()[:-1])
    before = tmp_path / "survivors"
    before.write_text(
        "survives: impl/layout.py:58: layout_for_pointer: align < pointer_bytes: Lt becomes LtE\n1 changes\n", encoding="utf-8"
    )
    assert main(["layout", "--again", str(before)]) == 0
    out, _ = capsys.readouterr()
    assert out.splitlines()[-1] == "1 changes, 0 noticed, 1 survive"


def test_what_is_not_to_be_changed_is_left_alone() -> None:
    methods = "    def create(self):\n        return 4 + 5\n\n    def find(self, a: int | str) -> int | None:\n        return 0\n"
    small = f"class StackMapRegistry:\n{methods}"
    assert [change.what for change in changes("m", small, frozenset())] == ["0 becomes 1"]
    assert [change.function for change in changes("m", "A: Final = 1\n\ndef f():\n    return 0\n", frozenset({""}))] == ["", ""]

"""Progress is shown on a terminal, and said elsewhere."""

from __future__ import annotations

import io

import pytest

from fuzz.campaign import Task
from fuzz.check_report import CheckProgress
from fuzz.explore import Search
from fuzz.live import Lines
from fuzz.report import Progress
from model.limits import SCOPES


@pytest.fixture(autouse=True)
def usual_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """What kind of terminal the tests themselves run in must not matter."""
    monkeypatch.setenv("TERM", "xterm")
    for name in ("FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_campaign_is_displayed_on_a_terminal() -> None:
    stream = Terminal()
    with Progress(stream, total=1, runs=None) as progress:
        progress.begin(Task("random", SCOPES["counting"]), 3)
        assert progress.live is not None
        progress.live.refresh()
    assert "counting" in stream.getvalue()


def test_a_search_is_displayed_on_a_terminal() -> None:
    stream = Terminal()
    with CheckProgress(stream, "nesting", Search()) as progress:
        assert progress.live is not None
        progress.live.refresh()
    assert "nesting: 0 s, depth 0" in stream.getvalue()


def test_a_line_is_due_now_and_then_where_there_is_no_terminal() -> None:
    lines = Lines(io.StringIO(), str)
    assert lines.live is None
    assert not lines.due()
    lines.told -= 60
    assert lines.due()
    assert not lines.due()

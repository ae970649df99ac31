"""Progress is a live display on a terminal and a plain line now and then elsewhere."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, Self, TextIO

from rich.console import Console
from rich.live import Live
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import RenderableType

REFRESHES: Final = 5.0
"""Of the display, in a second."""
PLAIN_SECONDS: Final = 10.0
"""Between two plain lines."""


class Lines:
    """What a command says of its progress, above or instead of a display. A context manager.

    Args:
        stream: where to.
        display: what the display shows.
    """

    def __init__(self, stream: TextIO, display: Callable[[], RenderableType]) -> None:
        self.console = Console(file=stream, highlight=False, soft_wrap=True)
        self.started = self.told = time.monotonic()
        self.live: Live | None = None
        if self.console.is_terminal:
            self.live = Live(
                console=self.console,
                get_renderable=display,
                refresh_per_second=REFRESHES,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )

    def __enter__(self) -> Self:
        if self.live is not None:
            self.live.start()
        return self

    def __exit__(self, *_error: object) -> None:
        if self.live is not None:
            self.live.stop()

    def due(self) -> bool:
        """Say whether it is time for a plain line; if so, the time to the next one begins."""
        if self.live is not None or (now := time.monotonic()) - self.told < PLAIN_SECONDS:
            return False
        self.told = now
        return True

    def say(self, line: str) -> None:
        """Write a line above the display."""
        self.console.print(Text(line))

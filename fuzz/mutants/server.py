"""Forks a process for each changed module that it is given, and says what noticed: `python -m fuzz.mutants.server MODULE SECONDS`.

Everything is imported before but `impl` and what needs it, so that a fork is all that a fresh process costs. Jobs come in as lines
of JSON, `[number, text]`; results go out as `[number, stage, words, seconds]`.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import resource
import select
import signal
import sys
import time
from typing import Final

from fuzz.mutants.catalogue import Mutant
from fuzz.mutants.cell import MEMORY_BYTES_MAX
from fuzz.mutants.importer import Finder
from fuzz.mutants.judge import judge, traces

CPU_SECONDS_MAX: Final = 150
"""The code as it is takes a fifth of that. Time of the processor, so that a busy machine changes nothing."""
WALL_SECONDS_MAX: Final = 1500.0
"""For what waits and does nothing."""
_PRELOADED: Final = ("pytest", "hypothesis", "rich.console", "rich.table", "model.choose", "model.step", "fuzz.swarm", "fuzz.watchdog")
_WORDS_MAX: Final = 300


class _Changed(Finder):
    """Finds one module, of a given text."""

    def __init__(self, module: str, text: str) -> None:
        self.mutant = Mutant(f"auto-{module}", module, "derived", "abort", "", "", "")
        self.fullname = f"impl.{module}"
        self._text = text


def _child(module: str, text: str, seconds: float, kept: list, out: int) -> None:  # type: ignore[type-arg]  # traces
    """Judge in this process, write a line, and end it."""
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS_MAX, CPU_SECONDS_MAX + 5))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES_MAX, MEMORY_BYTES_MAX))
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    sys.meta_path.insert(0, _Changed(module, text))
    stage, words = judge(module, kept, seconds)
    os.write(out, json.dumps([stage, words[:_WORDS_MAX]]).encode())
    os._exit(0)


def _judged(module: str, text: str, seconds: float, kept: list) -> tuple[str, str]:  # type: ignore[type-arg]  # traces
    """Fork, wait, and return what noticed and what it says."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            os.setsid()
            _child(module, text, seconds, kept, writer)
        os._exit(1)
    os.close(writer)
    ready, _, _ = select.select([reader], [], [], WALL_SECONDS_MAX)
    said = os.read(reader, 1 << 16) if ready else b""
    os.close(reader)
    with contextlib.suppress(ProcessLookupError):
        # What it has started goes with it.
        os.killpg(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if said:
        stage, words = json.loads(said)
        return stage, words
    return "limits", f"the process ended with status {status}: out of time, out of memory, or worse"


def main(argv: list[str]) -> int:
    """Serve until there are no more jobs."""
    module, seconds = argv[1], float(argv[2])
    for name in _PRELOADED:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    kept = traces()
    loaded = sorted(name for name in sys.modules if name == "impl" or name.startswith("impl."))
    if loaded:
        sys.stderr.write(f"drc: {loaded} are imported already; a change of impl would not show\n")
        return 4
    for line in sys.stdin:
        number, text = json.loads(line)
        start = time.monotonic()
        stage, words = _judged(module, text, seconds, kept)
        sys.stdout.write(json.dumps([number, stage, words, time.monotonic() - start]) + "\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))

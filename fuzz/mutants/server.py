"""Forks a process for each changed module that it is given, and says what notices: `python -m fuzz.mutants.server`.

Everything is imported before but `impl` and what needs it, so that a fork is all that a fresh process costs. Jobs come in as lines
of JSON, results go out as `[number, what notices, what it says, seconds]`. A job is one of::

    {"number": 1, "module": "stack", "text": "...", "seconds": 5, "quick": true}           half of what might notice
    {"number": 2, "module": "stack", "text": "...", "trace": "# drc ...", "checked": true} one replay
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
from typing import TYPE_CHECKING, Any, Final

from fuzz.mutants.catalogue import Mutant
from fuzz.mutants.importer import Finder
from fuzz.mutants.judge import judge, replay, traces
from fuzz.mutants.names import MEMORY_BYTES_MAX

if TYPE_CHECKING:
    from model.trace import Trace

CPU_SECONDS_MAX: Final = 150
"""The code as it is takes a fifth of that. Time of the processor, so that a busy machine changes nothing."""
WALL_SECONDS_MAX: Final = 1500.0
"""For what waits and does nothing."""
_PRELOADED: Final = (
    *("pytest", "rich.console", "rich.table", "model.choose", "model.step", "fuzz.swarm", "fuzz.watchdog"),
    # What pytest and the unit tests would import in every fork: two seconds of the processor.
    *("hypothesis", "hypothesis.stateful", "hypothesis.internal.conjecture.engine", "hypothesis.internal.conjecture.shrinker"),
    *("_hypothesis_pytestplugin", "_pytest.doctest", "_pytest.junitxml", "_pytest.pytester", "_pytest.python", "_pytest.terminal"),
    *("pdb", "unittest.mock", "xml.etree.ElementTree", "zoneinfo"),
)
_WORDS_MAX: Final = 300


class _Changed(Finder):
    """Finds one module, of a given text."""

    def __init__(self, module: str, text: str) -> None:
        self.mutant = Mutant(f"auto-{module}", module, "derived", "abort", "", "", "")
        self.fullname = f"impl.{module}"
        self._text = text


def _child(job: dict[str, Any], kept: list[Trace], out: int) -> None:
    """Do a job in this process, write a line, and end it."""
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS_MAX, CPU_SECONDS_MAX + 5))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES_MAX, MEMORY_BYTES_MAX))
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    if job["text"]:
        sys.meta_path.insert(0, _Changed(job["module"], job["text"]))
    if "trace" in job:
        said = replay(job["trace"], checked=job["checked"])
    else:
        said = judge(job["module"], kept, job["seconds"], quick=job["quick"])
    os.write(out, json.dumps([said[0], said[1][:_WORDS_MAX]]).encode())
    os._exit(0)


def _done(job: dict[str, Any], kept: list[Trace]) -> tuple[str, str]:
    """Fork, wait, and return what noticed and what it says."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            os.setsid()
            _child(job, kept, writer)
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


def main() -> int:
    """Serve until there are no more jobs."""
    for name in _PRELOADED:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    kept = traces()
    loaded = sorted(name for name in sys.modules if name == "impl" or name.startswith("impl."))
    if loaded:
        sys.stderr.write(f"drc: {loaded} are imported already; a change of impl would not show\n")
        return 4
    for line in sys.stdin:
        job = json.loads(line)
        start = time.monotonic()
        stage, words = _done(job, kept)
        sys.stdout.write(json.dumps([job["number"], stage, words, time.monotonic() - start]) + "\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The atheris engine: the runtime target in a process group of its own, which ends in time and leaves no process behind.

Coverage of the implementation guides the bytes. The first finding ends the process; its trace is on disk before that.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from fuzz.choosers import Seeded
from fuzz.driver import Divergence, Driver
from fuzz.results import EngineResult, MissingExtra
from fuzz.shrink import diverges
from fuzz.target_support import ORDERS, Orders
from model.limits import Limits
from model.trace import parse_bytes

TARGET: Final = "fuzz.targets.runtime"
STARTUP_SECONDS_MAX: Final = 60.0
"""Importing and instrumenting the implementation takes a second on an idle machine."""
GRACE_SECONDS: Final = 30.0
"""Time to report a finding, or to notice that a run hangs."""
SECONDS_MAX: Final = 1e8
INPUT_BYTES_MAX: Final = 1024
CORPUS_INPUTS: Final = 48
CORPUS_BYTES_MIN: Final = 64
MEMORY_MIB_MAX: Final = 2048
CRASHED: Final = 77
"""Exit code of libFuzzer after a failed run."""
_LOG_BYTES: Final = 4000

# With these the same seed is the same run; otherwise corpus reloads and learnt comparisons depend on the clock.
_DETERMINISTIC: Final = ("-reload=0", "-use_cmp=0", "-entropic=0", "-cross_over=0")
_COVERAGE: Final = re.compile(rb"cov: (\d+)")


class TargetFailed(Exception):
    """The target ended in a way that is no finding: it could not start, ran out of memory, or was killed."""


def run_atheris(limits: Limits, *, seconds: float, runs: int | None, seed: int, folder: Path) -> EngineResult:
    """Run the runtime target.

    Args:
        limits: the scope.
        seconds: time to look for a finding, start-up not included.
        runs: most runs; None for no bound.
        seed: any int; with the same seed and number of runs, the same runs are done.
        folder: where the input of a finding and its trace are put; the corpus is temporary.

    Raises:
        MissingExtra: atheris is not installed.
        TargetFailed: see there.
    """
    if find_spec("atheris") is None:
        raise MissingExtra("atheris", "fuzz")
    start = time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    known = set(folder.glob("*.trace"))
    with tempfile.TemporaryDirectory(prefix="drc-atheris-") as place:
        statistics = Path(place, "statistics.json")
        log = Path(place, "log")
        corpus = Path(place, "corpus")
        write_corpus(corpus, seed)
        orders = Orders(limits, statistics, min(seconds, SECONDS_MAX), runs)
        command = [
            sys.executable,
            "-m",
            TARGET,
            # 0 would mean a random one.
            f"-seed={seed % 0xFFFF_FFFE + 1}",
            *_DETERMINISTIC,
            f"-max_len={INPUT_BYTES_MAX}",
            # From the beginning, not after hours: a short input is a run of three operations.
            "-len_control=0",
            f"-rss_limit_mb={MEMORY_MIB_MAX}",
            f"-artifact_prefix={folder.absolute()}/",
            str(corpus),
        ]
        interrupted = False
        try:
            code = _run(command, orders, log, min(seconds, SECONDS_MAX) + STARTUP_SECONDS_MAX + GRACE_SECONDS)
        except KeyboardInterrupt:
            # The target writes its statistics now and then, so the last ones are what is known.
            code, interrupted = 0, True
        said = log.read_bytes()
        result = _result(limits, statistics)
        result.interrupted = interrupted
    found = sorted(set(folder.glob("*.trace")) - known)
    if found:
        result.limits, result.checked, result.finding = _finding(found[0])
    elif code:
        tail = said[-_LOG_BYTES:].decode(errors="replace")
        raise TargetFailed(f"the target ended with code {code} and no finding. Its last words:\n{tail}")
    edges = _COVERAGE.findall(said)
    result.coverage = int(edges[-1]) if edges else None
    result.seconds = time.monotonic() - start
    return result


def write_corpus(corpus: Path, seed: int) -> None:
    """Write inputs to begin with: without any, libFuzzer makes up inputs of few different bytes, and so of few kinds."""
    corpus.mkdir()
    dice = Seeded(seed)
    for number in range(CORPUS_INPUTS):
        size = CORPUS_BYTES_MIN << number % 4
        (corpus / f"{number:03}").write_bytes(bytes(dice.choose(256) for _ in range(size)))


def _run(command: list[str], orders: Orders, log: Path, seconds: float) -> int:
    """Run a command with orders, in a process group that is killed when it takes too long or we are interrupted."""
    root = str(Path(__file__).resolve().parent.parent)
    path = os.pathsep.join(word for word in (root, os.environ.get("PYTHONPATH")) if word)
    environment = os.environ | {ORDERS: orders.write(), "PYTHONPATH": path, "PYTHONHASHSEED": "0"}
    with log.open("wb") as out:
        process = subprocess.Popen(  # noqa: S603  # our own interpreter on our own module
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=environment, cwd=log.parent, start_new_session=True
        )
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise TargetFailed(f"the target did not end within {seconds:g} seconds and was killed") from None
        finally:
            # The group, not the process: libFuzzer may have started others.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _result(limits: Limits, statistics: Path) -> EngineResult:
    """Read what the target counted; nothing if it did not come so far."""
    result = EngineResult(limits)
    if statistics.exists():
        said = json.loads(statistics.read_text(encoding="utf-8"))
        result.runs, result.operations, result.seen = said["runs"], said["operations"], said["seen"]
        result.counts, result.seen_counts = said["counts"], said["seen_counts"]
    return result


def _finding(path: Path) -> tuple[Limits, bool, Divergence]:
    """Read a trace that the target wrote, and let it happen again in this process.

    Returns:
        Its limits, whether the checked memory was used, and the disagreement; if it does not happen again, what the target said.
    """
    data = path.read_bytes()
    trace = parse_bytes(data)
    pairs = (line[2:].split("=", 1) for line in data.decode().splitlines() if line.startswith("# ") and "=" in line)
    notes = {pair[0]: pair[1] for pair in pairs if pair[0] in {"verdict", "checked", "text"}}
    checked = notes.get("checked") == "1"
    found = diverges(Driver(trace.limits, checked=checked), trace.rows)
    if found is None:
        text = f"{notes.get('text', '')} (it did not happen again in another process)"
        found = Divergence(notes.get("verdict", "Divergence"), text, trace.rows, [0] * len(trace.rows), len(trace.rows))
    return trace.limits, checked, found

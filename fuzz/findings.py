"""A finding is a folder: the minimised trace, the story in words, a pytest file that replays it, and the versions.

The folder appears whole or not at all. Its name follows from the trace, so the same finding made twice is one folder.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import shutil
import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from fuzz.driver import Divergence, HarnessBroken
from fuzz.narrator import Telling, tell, tell_unreplayed
from fuzz.shrink import REPLAYS_MAX, Shrinker, hunt, shrink_limits
from fuzz.story import LINES_MAX, story
from model.trace import VERSION, Trace, format_trace

if TYPE_CHECKING:
    from pathlib import Path

    from model.limits import Limits

DIGEST_DIGITS: Final = 8
_SHRINK_REPLAYS: Final = {"Hang": 40}
"""Each replay that shows a hang waits for its time limit."""

_TEST: Final = '''"""Replays a finding: passes once model and implementation agree on `trace.drc` to its end."""

from pathlib import Path

from fuzz.driver import Driver
from fuzz.watchdog import time_limit
from model.trace import parse_bytes


def test_both_sides_agree_to_the_end() -> None:
    trace = parse_bytes(Path(__file__).with_name("trace.drc").read_bytes())
    with time_limit(60):
        Driver(trace.limits, checked={checked}).replay(trace.rows)
'''


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a finding comes from.

    Args:
        engine: its name.
        scope: its name.
        seed: of the campaign.
        run: number of the run, or None where the engine does not count them.
    """

    engine: str
    scope: str
    seed: int
    run: int | None = None

    def words(self) -> str:
        """Return it in a few words."""
        run = "" if self.run is None else f", run {self.run}"
        return f"{self.engine} engine, scope {self.scope}, seed {self.seed}{run}"


@dataclass(frozen=True, slots=True)
class Finding:
    """A disagreement, minimised and told.

    Args:
        trace: the operations that lead there, without the finale.
        divergence: what the two sides say.
        checked: on which memory.
        origin: where it comes from.
        operations: how many it had before it was minimised.
        kept_whole: why the trace is as it was found; empty if it was minimised.
        telling: the replay in words.
        checked_says: what the checked memory says of a finding made on the raw one, if that is something else.
    """

    trace: Trace
    divergence: Divergence
    checked: bool
    origin: Origin
    operations: int
    kept_whole: str
    telling: Telling
    checked_says: str

    @property
    def name(self) -> str:
        """Name of the folder."""
        digest = hashlib.sha256(format_trace(self.trace).encode()).hexdigest()
        return f"{self.divergence.verdict}-{digest[:DIGEST_DIGITS]}"

    def lines(self, *, again: str, lines_max: int | None = LINES_MAX) -> list[str]:
        """Tell it.

        Args:
            again: the trace's path as the user should type it.
            lines_max: cut the operations in the middle to stay within; None tells all.
        """
        memory = "checked" if self.checked else "raw"
        shrunk = "not minimised" if self.kept_whole else f"{len(self.trace.rows)} of {self.operations} operations"
        notes = []
        if self.checked_says:
            notes.append(f"checked memory: {self.checked_says}")
        if self.kept_whole:
            notes.append(f"not minimised: {self.kept_whole}; {again} has the whole trace as it was found")
        else:
            notes.append(f"again: drc replay {again}{'' if self.checked else ' --raw'} -v")
        where = f"{self.origin.words()}, {memory} memory, {shrunk}"
        return story(self.telling, where=where, notes=tuple(notes), lines_max=lines_max)

    def trace_text(self) -> str:
        """Return the trace with bars and a few words about where it comes from."""
        memory = "checked" if self.checked else "raw"
        depths = self.divergence.depths[: len(self.trace.rows)]
        notes = (f"{self.divergence.verdict} on the {memory} memory; {self.origin.words()}",)
        return format_trace(self.trace, depths if len(depths) == len(self.trace.rows) else None, notes)


def minimise(limits: Limits, divergence: Divergence, *, checked: bool, origin: Origin) -> Finding:
    """Cut a disagreement down and tell it.

    An interruption from the keyboard ends the minimising, not the finding: its trace is kept as it was found.

    Args:
        limits: of the run.
        divergence: as the engine found it.
        checked: on which memory.
        origin: where it comes from.
    """
    whole = Trace(limits, divergence.rows[: divergence.chosen])
    try:
        trace, telling = _shrunk(whole, checked=checked, verdict=divergence.verdict)
        says = "" if checked else _checked_says(trace, telling)
    except (_Vanished, HarnessBroken, KeyboardInterrupt) as error:
        kept_whole = "interrupted" if isinstance(error, KeyboardInterrupt) else str(error)
        return Finding(
            whole, divergence, checked, origin, len(whole.rows), kept_whole, tell_unreplayed(whole, divergence, checked=checked), ""
        )
    return Finding(trace, telling.divergence or divergence, checked, origin, len(whole.rows), "", telling, says)


class _Vanished(Exception):
    """A finding does not show again."""

    def __str__(self) -> str:
        return "it did not show again when it was replayed"


def _checked_says(trace: Trace, telling: Telling) -> str:
    """Return what the checked memory says of a finding on the raw one, if it is something else."""
    other = tell(trace, checked=True).divergence
    return "" if other is None or telling.divergence is None or other.verdict == telling.divergence.verdict else str(other)


def _shrunk(whole: Trace, *, checked: bool, verdict: str) -> tuple[Trace, Telling]:
    """Return the smallest trace and its telling.

    Raises:
        _Vanished: the finding does not show again.
    """
    trace = _smallest(whole, checked=checked, verdict=verdict)
    telling = tell(trace, checked=checked)
    if telling.divergence is None:
        raise _Vanished
    return trace, telling


def _smallest(whole: Trace, *, checked: bool, verdict: str) -> Trace:
    replays = _SHRINK_REPLAYS.get(verdict, REPLAYS_MAX)
    trace, found = Shrinker(whole, checked=checked, verdict=verdict, replays_max=replays).shrink()
    if found is None:
        raise _Vanished
    if verdict in _SHRINK_REPLAYS:
        return trace
    narrow = shrink_limits(trace, checked=checked, verdict=verdict)
    if narrow.limits != trace.limits:
        smaller, still = Shrinker(narrow, checked=checked, verdict=verdict, replays_max=replays).shrink()
        if still is not None and len(smaller.rows) < len(trace.rows):
            trace = smaller
    return hunt(trace, checked=checked, verdict=verdict)


def write(finding: Finding, parent: Path) -> Path:
    """Write a finding's folder; return its path. A folder of that name is left as it is.

    Args:
        finding: what to write.
        parent: folder of findings; made if it is not there.

    Raises:
        OSError: it could not be written, and nothing is left behind.
    """
    folder = parent / finding.name
    if folder.is_dir():
        return folder
    parent.mkdir(parents=True, exist_ok=True)
    draft = tempfile.mkdtemp(prefix=".draft-", dir=parent)
    try:
        os.chmod(draft, 0o755)  # noqa: PTH101, S103  # a finding is for everyone to read, and mkdtemp hides it
        for name, text in _files(finding, folder).items():
            _write_durably(os.path.join(draft, name), text)  # noqa: PTH118
        _sync(draft)
        os.rename(draft, folder)  # noqa: PTH104
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        if folder.is_dir():
            # Another campaign was faster with the same finding.
            return folder
        raise
    _sync(parent)
    return folder


def _files(finding: Finding, folder: Path) -> dict[str, str]:
    again = str(folder / "trace.drc")
    return {
        "trace.drc": finding.trace_text(),
        "story.txt": "\n".join(finding.lines(again=again, lines_max=None)) + "\n",
        "test_finding.py": _TEST.format(checked=finding.checked),
        "versions.txt": versions(finding),
    }


def version() -> str:
    """Return this distribution's version."""
    try:
        return importlib.metadata.version("drc-check")
    except importlib.metadata.PackageNotFoundError:
        return "unknown (not installed)"


def versions(finding: Finding) -> str:
    """Return what was running, a line each."""
    pairs = {
        "drc-check": version(),
        "trace format": f"v{VERSION}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "platform": platform.platform(),
        "engine": finding.origin.engine,
        "scope": finding.origin.scope,
        "seed": str(finding.origin.seed),
        "run": "unknown" if finding.origin.run is None else str(finding.origin.run),
        "memory": "checked" if finding.checked else "raw",
    }
    return "".join(f"{name}: {value}\n" for name, value in pairs.items())


def _write_durably(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8", newline="\n") as file:  # noqa: PTH123
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _sync(path: str | Path) -> None:
    """Make a folder's entries durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def unwritable(folder: Path) -> str:
    """Say why no finding could be written into a folder, which need not exist yet; empty if one could."""
    there = folder
    while not there.exists() and there != there.parent:
        there = there.parent
    if not there.is_dir():
        return f"{there} is no folder"
    return "" if os.access(there, os.W_OK | os.X_OK) else f"{there} cannot be written to"

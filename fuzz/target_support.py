"""What the fuzz targets do with bytes: a run, its judgement, a trace beside the artifact, and the statistics that the engine reads.

A target gets its orders from the environment variable `DRC_TARGET`, because libFuzzer keeps the command line for itself and
starts the target again for some of its modes. Without orders the bytes choose the scope too.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Final, Self

from fuzz.choosers import Bytes
from fuzz.driver import Divergence, Driver
from fuzz.results import EngineResult
from fuzz.swarm import POOL, variant
from fuzz.watchdog import Hang, time_limit
from impl.arena import HEADER_WORDS, CheckedMemory, alloc, dealloc, initialise, raw_memory, restore, snapshot
from impl.errors import RegistrationRefused, Verdict
from impl.stack_maps import (
    BITS,
    MAPPED_WORDS,
    REGISTRY_WORDS,
    image_words,
    lookup_stack_map,
    register_stack_maps,
    registry_init,
    write_image,
)
from model.choose import Chooser, Exhausted
from model.code import Function, Module
from model.limits import SCOPES, Limits
from model.ops import Kind
from model.registry import accepts, find, interesting_pcs
from model.trace import Trace, format_trace, header, parse

ORDERS: Final = "DRC_TARGET"
RUN_SECONDS_MAX: Final = 10.0
"""A run takes milliseconds; one that takes so long would never end."""
STATISTICS_SECONDS: Final = 0.5
OPERATIONS_MAX: Final = 1000
CHECKED_ONE_IN: Final = 8
"""So many runs use the raw memory for each that uses the checked one, which is slower and names errors at their cause."""
_PREFIX: Final = "-artifact_prefix="


class Mismatch(BaseException):
    """The component under test disagrees with its reference."""


@dataclass(frozen=True, slots=True)
class Orders:
    """What the engine wants of a target.

    Args:
        limits: the scope; None lets the bytes choose among the presets.
        statistics: file to which the counters are written, or None.
        seconds: time after which the target ends by itself, or None.
        runs: executions after which it does, or None.
    """

    limits: Limits | None = None
    statistics: Path | None = None
    seconds: float | None = None
    runs: int | None = None

    @classmethod
    def read(cls, text: str) -> Self:
        """Read what `write` wrote."""
        said = json.loads(text)
        limits = replace(parse(said["header"] + "\n").limits, kinds=frozenset(Kind[name] for name in said["kinds"]))
        return cls(limits, Path(said["statistics"]), said["seconds"], said["runs"])

    def write(self) -> str:
        """Return the text for the environment variable; only orders with limits and statistics have one."""
        limits = self.limits or SCOPES["everything"]
        kinds = sorted(kind.name for kind in limits.kinds)
        said = {"header": header(limits), "kinds": kinds, "statistics": str(self.statistics), "seconds": self.seconds, "runs": self.runs}
        return json.dumps(said)


def arguments(argv: list[str], module: str) -> list[str]:
    """Return the command line for libFuzzer, under which it can start the target again; and take the alarm from it.

    Both it and atheris would use the one alarm that a process has, and end the process without a trace. With a handler in
    place atheris leaves it alone, and `time_limit` can have it.

    Args:
        argv: the command line; the first word is replaced in place.
        module: name of the target's module.
    """
    argv[0] = f"{sys.executable} -m {module}"
    if not any(word.startswith("-timeout=") for word in argv):
        argv.append("-timeout=0")
    signal.signal(signal.SIGALRM, _late)
    return argv


def _late(_signal: int, _frame: FrameType | None) -> None:
    """Do nothing: an alarm outside a time limit is too late to mean anything."""


def write_atomically(path: Path, text: str) -> None:
    """Write a file that is there whole or not at all, even if the machine goes down."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def artifact(data: bytes, argv: list[str]) -> Path:
    """Return where libFuzzer is going to put the input when the target fails on it."""
    prefix = next((word.removeprefix(_PREFIX) for word in reversed(argv) if word.startswith(_PREFIX)), "./")
    # libFuzzer names inputs by this digest; nobody has to trust it.
    return Path(f"{prefix}crash-{hashlib.sha1(data, usedforsecurity=False).hexdigest()}")


class RuntimeTarget:
    """The whole runtime in lockstep with the model.

    Args:
        argv: the command line, for the place of artifacts.
        orders: what to do; from the environment if not given.
    """

    def __init__(self, argv: list[str], orders: Orders | None = None) -> None:
        if orders is None:
            text = os.environ.get(ORDERS)
            orders = Orders.read(text) if text else Orders()
        self.argv = argv
        self.orders = orders
        self.result = EngineResult(orders.limits or SCOPES["everything"])
        self.drivers: dict[tuple[Limits, bool], Driver] = {}
        self.parent = os.getppid()
        self.start = time.monotonic()
        self.written = self.start

    def __call__(self, data: bytes) -> None:
        """Do the run that the bytes mean.

        Raises:
            Divergence: the two sides disagree; the trace lies beside the artifact by then.
        """
        chooser = Bytes(data)
        try:
            driver = self.driver(chooser)
        except Exhausted:
            driver = self.driver(Bytes(bytes(4)))
        found: Divergence | None = None
        try:
            with time_limit(RUN_SECONDS_MAX):
                driver.run(chooser, OPERATIONS_MAX)
        except Divergence as divergence:
            found = divergence
        except Hang as hang:
            found = driver.divergence("Hang", str(hang))
        self.result.add(driver.outcome())
        if found is not None:
            self.report(data, driver, found)
            raise found
        self.keep_statistics()

    def driver(self, chooser: Chooser) -> Driver:
        """Let the first bytes choose bounds and memory, and return a driver that is ready for a run."""
        limits = self.orders.limits
        if limits is None:
            limits = tuple(SCOPES.values())[chooser.choose(len(SCOPES))]
        if chooser.choose(2):
            limits = variant(limits, 1 + chooser.choose(POOL))
        checked = chooser.choose(CHECKED_ONE_IN) == CHECKED_ONE_IN - 1
        driver = self.drivers.get((limits, checked))
        if driver is None:
            driver = self.drivers[limits, checked] = Driver(limits, checked=checked)
        else:
            driver.reset()
        return driver

    def report(self, data: bytes, driver: Driver, found: Divergence) -> None:
        """Write the trace of a finding, and the statistics."""
        trace = Trace(driver.limits, found.rows[: found.chosen])
        checked = driver is self.drivers.get((driver.limits, True))
        notes = (f"verdict={found.verdict}", f"checked={int(checked)}", *f"text={found.text}".splitlines())
        write_atomically(artifact(data, self.argv).with_suffix(".trace"), format_trace(trace, found.depths, notes))
        self.write_statistics()

    def keep_statistics(self) -> None:
        """Write the statistics now and then, and end the process when its time is up: libFuzzer counts whole seconds only."""
        now = time.monotonic()
        orders = self.orders
        over = orders.seconds is not None and now >= self.start + orders.seconds
        over |= orders.runs is not None and self.result.runs >= orders.runs
        if over or now >= self.written + STATISTICS_SECONDS:
            self.written = now
            self.write_statistics()
            # Nobody reads on when the engine was killed.
            over |= orders.statistics is not None and os.getppid() != self.parent
        if over:
            # libFuzzer's own way out runs no more Python either.
            os._exit(0)

    def write_statistics(self) -> None:
        """Write the counters for the engine, if it wants them."""
        if self.orders.statistics is not None:
            result = self.result
            said = {
                "runs": result.runs,
                "operations": result.operations,
                "counts": result.counts,
                "seen": result.seen,
                "seen_counts": result.seen_counts,
            }
            write_atomically(self.orders.statistics, json.dumps(said))


class RegistryTarget:
    """The registry of stack maps against a linear scan.

    Args:
        argv: the command line, for the place of artifacts.
    """

    STACK_WORDS: Final = 16
    HEAP_WORDS: Final = 1 << 12
    MODULES_MAX: Final = 8

    def __init__(self, argv: list[str]) -> None:
        self.argv = argv
        self.mem = CheckedMemory(raw_memory(HEADER_WORDS + self.STACK_WORDS + self.HEAP_WORDS))
        initialise(self.mem, self.STACK_WORDS, len(self.mem), 0)
        self.registry = alloc(self.mem, REGISTRY_WORDS, 1)
        registry_init(self.mem, self.registry)
        self.pristine = snapshot(self.mem)

    def __call__(self, data: bytes) -> None:
        """Register the modules that the bytes mean, one after another.

        Raises:
            Mismatch, Verdict: the registry is wrong; what was registered lies beside the artifact by then.
        """
        restore(self.mem, self.pristine)
        chooser = Bytes(data)
        registered: list[Module] = []
        offered: list[Module] = []
        try:
            while len(offered) < self.MODULES_MAX:
                offered.append(choose_module(chooser))
                self.offer(registered, offered[-1])
        except Exhausted:
            pass
        except (Mismatch, Verdict) as found:
            text = f"{type(found).__name__}: {found}\nmodules offered, in this order:\n" + "".join(f"{module}\n" for module in offered)
            write_atomically(artifact(data, self.argv).with_suffix(".txt"), text)
            raise

    def offer(self, registered: list[Module], module: Module) -> None:
        """Offer one module and look everything interesting up."""
        mem, registry = self.mem, self.registry
        image = write_image(mem, module)
        try:
            register_stack_maps(mem, registry, image)
            accepted = True
        except RegistrationRefused:
            accepted = False
        dealloc(mem, image, image_words(module), 1)
        if accepted != accepts(registered, module):
            raise Mismatch(f"{module} beside {registered}: the registry says accepted={accepted}, the linear scan says the opposite")
        if accepted:
            registered.append(module)
        for pc in interesting_pcs(module):
            entry = lookup_stack_map(mem, registry, pc)
            found = (mem[entry + MAPPED_WORDS], mem[entry + BITS]) if entry else None
            if found != find(registered, pc):
                raise Mismatch(f"the map of pc {pc} is {find(registered, pc)} by linear scan, but the registry finds {found}")


def choose_module(chooser: Chooser) -> Module:
    """Choose the functions of a module, each of them with pcs and a first safepoint that has a map."""
    functions: list[Function] = []
    for _ in range(1 + chooser.choose(3)):
        start = 1 + chooser.choose(64)
        length = 1 + chooser.choose(16)
        infos = tuple((chooser.choose(length + 1), 2, chooser.choose(4)) for _ in range(1 + chooser.choose(3)))
        functions.append((start, start + length, infos))
    return tuple(functions)

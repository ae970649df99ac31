"""A process that runs programs on one released engine and says each thing that it sees before it can be lost.

It needs the standard library and the `wasmtime` package under test, and is started as `python -m fuzz.releases.runner`. Standard input has
one program a line (`fuzz.releases.program`), standard output one event a line: those that are told there, preceded by `["begin", id]`.
An event is written when it happens, so the last one says what the engine died of.

The process that is started makes an engine and runs nothing. It forks a process that runs programs, and another one whenever that has
died: to fork takes 2 ms where to start takes 80, and a release with a bug dies all the time. A process that begins says
`["ready", id]`; of one that died, its parent says `["over", code]`, the code as `subprocess` has it.

The engine holds each value in one box for as long as it lives, and the host has at most one handle to it. What the engine hands over
becomes a handle if there is none. After the script comes `drop_store`, if the script has not done it: all handles in order, then all
instances, then the store.

Who else holds on to a value is the C API's choice: it keeps the arguments of a call until the call returns and the parameters of an import
until the import returns, moved or not. The results of an import are moved indeed (but for 20 and 21, whose C API never gives them up).
"""

from __future__ import annotations

import argparse
import ctypes
import importlib
import json
import os
import select
import signal
import sys
from typing import Any, Final, NoReturn

from fuzz.releases.adapter import Adapter, RaisedError, Raw, RefusedError, Thing, TrappedError, give_up
from fuzz.releases.contextual import Contextual
from fuzz.releases.counted import Counted

PARENT_DEATH_SIGNAL: Final = 1
MODULES_MAX: Final = 64
"""Compiled modules that are kept: programs that differ only in what the host does share one."""
RECURSION_MAX: Final = 20_000
"""Frames of Python: destructors run inside destructors, and imports inside imports."""
MESSAGE_MAX: Final = 400
"""Characters of an engine's message that are kept."""
DEPTH_MAX: Final = 200
"""Imports and destructors inside each other: beyond it they do nothing."""

Where = tuple[str | int, ...]
Action = list[Any]
Seen = int | str | list[Any] | None


def say(event: list[Any]) -> None:
    """Write one event at once: the next thing that happens may be the end of this process."""
    os.write(1, json.dumps(event).encode() + b"\n")


def brief(error: Exception) -> str:
    """Return the engine's message without the host's stack, which differs between machines."""
    return str(error).partition("\n\nStack backtrace:")[0][:MESSAGE_MAX]


class Session:
    """One program's handles and instances, and the place where it is.

    Args:
        program: as JSON has it.
        adapter: shared by many programs, one after the other.
        modules: compiled modules, shared too.
    """

    def __init__(self, program: dict[str, Any], adapter: Adapter, modules: dict[str, tuple[Thing, list[Thing]]]) -> None:
        self.program = program
        self.adapter = adapter
        self.modules = modules
        self.handles: dict[int, Raw] = {}
        self.instances: dict[int, Thing] = {}
        self.exports: dict[tuple[int, str], Thing] = {}
        self.where: Where = ("script", -1)
        self.imports: list[list[Action]] = program.get("imports", [])
        self.imports_begun = 0
        self.destructors: dict[str, list[Action]] = program.get("destructors", {})
        self.destructors_open = 0
        self.depth = 0

    def run(self) -> None:
        """Do the script, then let go of everything."""
        self.adapter.open()
        script = self.program["script"]
        self.each(("script",), script)
        if self.adapter.store is not None:
            self.where = ("script", len(script))
            self.do(["drop_store"])

    def each(self, path: Where, actions: list[Action]) -> Action | None:
        """Do actions in order. Return the one that ends the list early."""
        before = self.where
        self.depth += 1
        try:
            for position, action in enumerate(actions):
                self.where = (*path, position)
                if action[0] in {"return", "raise"}:
                    return action
                self.do(action)
        finally:
            self.depth -= 1
            self.where = before
        return None

    def do(self, action: Action) -> None:
        """Do one action, and say what comes of it."""
        where = self.where
        if self.forbidden(action[0]):
            say(["skipped", where])
            return
        say(["at", where])
        try:
            getattr(self, "do_" + action[0])(*action[1:])
        except TrappedError as trapped:
            say(["trap", where, brief(trapped)])
        except RefusedError as refused:
            say(["error", where, brief(refused)])

    def forbidden(self, kind: str) -> bool:
        """Whether this release's API does not allow a kind of action here."""
        if kind == "drop_store" and self.where[0] != "script":
            return True
        if self.destructors_open and kind not in self.adapter.in_destructors:
            return True
        if self.adapter.store is None:
            return kind not in self.adapter.without_store
        return kind == "gc" and not self.adapter.collects

    def do_new(self, number: int) -> None:
        """Make a value."""
        self.handles[number] = self.adapter.new(number)

    def do_drop(self, number: int) -> None:
        """Give up a handle, if there is one."""
        if number in self.handles:
            self.adapter.release(self.handles.pop(number))

    def do_instantiate(self, number: int, sources: dict[str, list[Any]]) -> None:
        """Make an instance; the module is compiled first."""
        module, wanted = self.module()
        imports = [
            self.adapter.host_function(item.name) if item.module == "host" else self.source(item.type, sources.get(item.name))
            for item in wanted
        ]
        self.instances[number] = self.adapter.instantiate(module, imports)

    def module(self) -> tuple[Thing, list[Thing]]:
        """The program's module, compiled, and what it imports."""
        wat = self.program["wat"]
        if wat not in self.modules:
            while len(self.modules) >= MODULES_MAX:
                del self.modules[next(iter(self.modules))]
            self.modules[wat] = self.adapter.compile(wat)
        return self.modules[wat]

    def source(self, kind: Thing, source: list[Any] | None) -> Thing:
        """What is given for an import from "env"."""
        if source is None:
            raise RefusedError("an import has no source")
        if source[0] == "value":
            return self.adapter.new_global(kind, self.argument(source[1]))
        if source[0] == "fresh":
            return self.adapter.new_table(kind, self.argument(source[2]))
        if source[0] == "host":
            return self.adapter.host_function(source[1])
        return self.export(source[1], source[2])

    def export(self, number: int, name: str) -> Thing:
        """Something that an instance exports."""
        if number not in self.instances:
            raise RefusedError(f"no instance {number}")
        key = number, name
        if key not in self.exports:
            self.exports[key] = self.adapter.export(self.instances[number], name)
        return self.exports[key]

    def do_call(self, number: int, name: str, arguments: list[Any], moved: list[int] | None = None) -> None:
        """Call an exported function. Handles that move leave the table before the call begins."""
        where = self.where
        raws = [self.argument(value) for value in arguments]
        function = self.export(number, name)
        leaving = [self.handles.pop(value) for value in moved or [] if value in self.handles]
        try:
            results = self.adapter.call(function, raws)
        finally:
            for handle in leaving:
                self.adapter.release(handle)
        self.got(where, results)

    def do_global_get(self, number: int, name: str) -> None:
        """Read an exported global."""
        self.got(self.where, [self.adapter.global_get(self.export(number, name))])

    def do_global_set(self, number: int, name: str, value: int | None) -> None:
        """Write an exported global."""
        self.adapter.global_set(self.export(number, name), self.argument(value))

    def do_table_get(self, number: int, name: str, index: int) -> None:
        """Read an element of an exported table."""
        self.got(self.where, [self.adapter.table_get(self.export(number, name), index)])

    def do_table_set(self, number: int, name: str, index: int, value: int | None) -> None:
        """Write an element of an exported table."""
        self.adapter.table_set(self.export(number, name), index, self.argument(value))

    def do_table_grow(self, number: int, name: str, delta: int, value: int | None) -> None:
        """Let an exported table grow."""
        say(["size", self.where, self.adapter.table_grow(self.export(number, name), delta, self.argument(value))])

    def do_table_size(self, number: int, name: str) -> None:
        """Ask for the size of an exported table."""
        say(["size", self.where, self.adapter.table_size(self.export(number, name))])

    def do_gc(self) -> None:
        """Collect."""
        self.adapter.gc()

    def do_drop_instance(self, number: int) -> None:
        """Let go of an instance and of what was asked of it."""
        self.exports = {key: item for key, item in self.exports.items() if key[0] != number}
        self.instances.pop(number, None)

    def do_drop_store(self) -> None:
        """Let go of everything."""
        while self.handles:
            self.do_drop(min(self.handles))
        self.exports.clear()
        self.instances.clear()
        self.adapter.close()
        # A destructor may have made values while the store went down.
        while self.handles:
            self.do_drop(min(self.handles))

    def argument(self, value: int | list[Any] | None) -> Raw:
        """The C API's form of an argument; a handle stays the host's."""
        if value is None:
            return self.adapter.null()
        if isinstance(value, list):
            return self.adapter.integer(value[0], value[1])
        if value not in self.handles:
            raise RefusedError(f"the host has no handle to {value}")
        return self.handles[value]

    def got(self, where: Where, raws: list[Raw]) -> None:
        """Say what the engine handed over, and keep it."""
        seen = [self.see(raw) for raw in raws]
        say(["got", where, seen])
        for value, raw in zip(seen, raws, strict=True):
            if not isinstance(value, int):
                continue
            if value in self.handles:
                self.adapter.release(raw)
            else:
                self.handles[value] = raw

    def see(self, raw: Raw) -> Seen:
        """What a value is, for an event. A number that no value has is no identity, but whatever memory held."""
        seen = self.adapter.look(raw)
        if isinstance(seen, int) and not 0 <= seen < self.program["values"]:
            return f"?{(seen + 1) & (1 << 64) - 1:#x}"
        return seen

    def imported(self, parameters: list[Raw], count: int) -> list[Raw]:
        """Answer a call from Wasm."""
        call, before = self.imports_begun, self.where
        self.imports_begun += 1
        self.where = ("import", call, -1)
        say(["at", self.where])
        self.got(self.where, parameters)
        in_destructor, self.destructors_open = self.destructors_open, 0
        try:
            actions = self.imports[call] if call < len(self.imports) and self.depth < DEPTH_MAX else []
            ending = self.each(("import", call), actions)
            if ending and ending[0] == "raise":
                raise RaisedError("raised by an import")
            return self.results(ending or ["return", []], count)
        finally:
            self.destructors_open = in_destructor
            self.where = before

    def results(self, ending: Action, count: int) -> list[Raw]:
        """What an import returns: a handle of its own for each result; then those that move leave the table."""
        values = ending[1][:count]
        raws = [self.adapter.clone(self.handles[value]) if value in self.handles else self.adapter.null() for value in values]
        raws += [self.adapter.null()] * (count - len(values))
        for value in ending[2] if len(ending) > 2 else []:
            self.do_drop(value)
        return raws

    def destroyed(self, number: int) -> None:
        """Say that the engine has destroyed a value, and do what its destructor does."""
        before = self.where
        known = 0 <= number < self.program["values"]
        say(["destroyed", number if known else f"?{(number + 1) & (1 << 64) - 1:#x}", before])
        if self.depth < DEPTH_MAX:
            self.destructors_open += 1
            try:
                self.each(("destructor", number), self.destructors.get(str(number), []))
            finally:
                self.destructors_open -= 1


class Runner:
    """The sessions of one process, one at a time.

    Args:
        package: the `wasmtime` package under test.
        opt_level: of its compiler.
    """

    def __init__(self, package: Thing, opt_level: str) -> None:
        family = Contextual if hasattr(package._ffi, "wasmtime_context_gc") else Counted  # noqa: SLF001 - the C API is the point
        self.adapter: Adapter = family(package, self.destroyed, self.imported, opt_level)
        self.modules: dict[str, tuple[Thing, list[Thing]]] = {}
        self.session: Session | None = None

    def run(self, program: dict[str, Any]) -> None:
        """Run one program."""
        say(["begin", program["id"]])
        self.session = Session(program, self.adapter, self.modules)
        self.session.run()
        say(["end"])

    def destroyed(self, number: int) -> None:
        """Tell the session, inside the engine's finalizer."""
        if self.session is not None:
            self.session.destroyed(number)

    def imported(self, parameters: list[Raw], count: int) -> list[Raw]:
        """Let the session answer a call from Wasm."""
        if self.session is None:
            raise RaisedError("no program is running")
        return self.session.imported(parameters, count)


def follow(parent: int) -> None:
    """End with the parent: it may be killed, and then nobody reads what comes out of this process, or stops it."""
    ctypes.CDLL(None).prctl(PARENT_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)


def serve(runner: Runner) -> None:
    """Run programs in a process of its own, and in another one when that has died, until standard input ends."""
    here = os.getpid()
    ended = select.poll()
    ended.register(0, select.POLLIN)
    # A writer that is gone leaves a hang-up, and nothing to read.
    while select.POLLHUP not in [event for _, event in ended.poll(0)]:
        child = os.fork()
        if not child:
            follow(here)
            work(runner)
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        if code == 0:
            return
        say(["over", code])


def work(runner: Runner) -> NoReturn:
    """Run the programs of standard input until it ends."""
    try:
        say(["ready", os.getpid()])
        for line in sys.stdin.buffer:
            runner.run(json.loads(line))
    except Exception:  # noqa: BLE001
        give_up()
    # No finalizers of modules: what is left is the engine, and all programs have ended.
    os._exit(0)


def main() -> None:
    """Run the programs of standard input until it ends."""
    parser = argparse.ArgumentParser(prog="python -m fuzz.releases.runner", description="Run programs on one released engine.")
    parser.add_argument("package", help="folder that has the `wasmtime` package")
    parser.add_argument("--opt-level", choices=("none", "speed", "speed_and_size"), default="speed")
    arguments = parser.parse_args()
    follow(os.getppid())
    # A terminal interrupts all that runs in it. To end this process is its parent's business, or it would look like a death.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.setrecursionlimit(RECURSION_MAX)
    sys.path.insert(0, arguments.package)
    try:
        serve(Runner(importlib.import_module("wasmtime"), arguments.opt_level))
    except Exception:  # noqa: BLE001
        give_up()
    os._exit(0)


if __name__ == "__main__":
    main()

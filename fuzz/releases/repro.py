"""A finding as one Python file that needs nothing but the `wasmtime` package, and runs on every release of it.

What a person reads stands first: the module, and what the host does. Then come the adapters and the session of the runner, line by line
but for their docstrings, so that the file does what the runner did. On a release that has the bug it dies, or says what is wrong and
exits with 1; on one that has not it exits with 0.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from fuzz.releases.engine import environment

Action = list[Any]
Place = Sequence[str | int]

HERE: Final = Path(__file__).parent
PARTS: Final = {
    "adapter.py": (),
    "counted.py": (),
    "contextual.py": (),
    "runner.py": ("say", "main", "PARENT_DEATH_SIGNAL"),
}
"""The files that are taken over, and what is left out of each."""

_VARIABLES: Final = ("MALLOC_PERTURB_", "MALLOC_CHECK_", "LD_PRELOAD", "RUST_BACKTRACE")

_HEAD: Final = '''#!/usr/bin/env python3
"""{title}

    pip install wasmtime=={release}
    python {name}

{story}
"""

WAT = r"""
{wat}
"""

# What the host does. Values are numbers; the host has at most one handle to each.
SCRIPT = [
{script}]

# What each call of an import ("host", "hP_R") does, counted over the whole run. Beyond the list: nothing, and results are null.
IMPORTS = [
{imports}]

# What destructors do, where the release allows it.
DESTRUCTORS = {{
{destructors}}}

# What the engine has to hand over, and where.
EXPECTED = [
{expected}]

# Sizes of tables that it has to tell, and where.
SIZES = [
{sizes}]

# Where calls trap: there and nowhere else, unless this is None.
TRAPS = {traps}

# Places before which a value may not be destroyed, as something owns it until then.
OWNED = {{
{owned}}}

# Values that have to be destroyed when the action at a place is over.
DEAD = [
{dead}]

VALUES = {values}

# ------------------------------------------------------------------------------------------------------------------------------
# The rest is how a host does these things on any release of the package, and says what it sees.

'''

_TAIL: Final = '''
WRONG: list[str] = []
ALIVE: set[int] = set()


REACHED: list[list[Any]] = []


def say(event: list[Any]) -> None:
    """Print an event, and hold it against what has to be."""
    print(*(json.dumps(part) for part in event), flush=True)
    kind = event[0]
    where = list(event[1]) if kind in ("at", "got", "size", "trap") else []
    if kind == "end" or (kind == "at" and where[0] != "destructor"):
        for place, values in DEAD:
            if REACHED[-1:] == [place]:
                WRONG.extend(f"value {value} is alive after {place}, and nothing owns it" for value in values if value in ALIVE)
        REACHED.append(where)
    elif kind == "new":
        ALIVE.add(event[1])
    elif kind == "destroyed":
        if event[1] not in ALIVE:
            WRONG.append(f"{event[1]} is destroyed, and was not alive")
        elif event[1] in OWNED and OWNED[event[1]] not in REACHED:
            WRONG.append(f"value {event[1]} is destroyed at {list(event[2])}, and is owned until {OWNED[event[1]]}")
        ALIVE.discard(event[1])
    elif kind == "got":
        WRONG.extend(f"no value of the program at {where}" for seen in event[2] if isinstance(seen, str))
        WRONG.extend(f"{event[2]} instead of {values} at {where}" for place, values in EXPECTED if place == where and values != event[2])
    elif kind == "size":
        WRONG.extend(f"{event[2]} instead of {size} at {where}" for place, size in SIZES if place == where and size != event[2])
    elif kind == "trap" and TRAPS is not None and where not in TRAPS and where[0] != "destructor":
        WRONG.append(f"a trap at {where}")


class Reproduction(Runner):
    """The runner, with one program."""

    def run_once(self) -> None:
        """Run it, and say what is wrong."""
        make = self.adapter.new

        def new(number: int) -> Raw:
            value = make(number)
            say(["new", number])
            return value

        self.adapter.new = new  # type: ignore[method-assign]
        self.run({"id": 0, "wat": WAT, "values": VALUES, "script": SCRIPT, "imports": IMPORTS, "destructors": DESTRUCTORS})
        WRONG.extend(f"value {number} is never destroyed" for number in sorted(ALIVE))
        print("wrong: " + "; ".join(WRONG) if WRONG else "nothing wrong here", flush=True)
        # No finalizers of modules.
        os._exit(1 if WRONG else 0)


def main() -> None:
    """Let the C library overwrite what is freed, so that its use shows; then run the program."""
    wanted = ENVIRONMENT
    if any(name not in os.environ for name in wanted):
        os.environ.update(wanted)
        os.execv(sys.executable, [sys.executable, *sys.argv])
    sys.setrecursionlimit(RECURSION_MAX)
    try:
        import wasmtime
    except ImportError:
        sys.exit("this needs the package `wasmtime`")
    from importlib.metadata import version

    print("wasmtime", version("wasmtime"), flush=True)
    Reproduction(wasmtime, "OPT_LEVEL").run_once()


if __name__ == "__main__":
    main()
'''


def reproduction(
    program: dict[str, Any],
    release: str,
    seen: str,
    *,
    story: str = "",
    expected: Iterable[tuple[Place, Sequence[Any]]] = (),
    sizes: Iterable[tuple[Place, int]] = (),
    traps: Iterable[Place] | None = None,
    owned: Iterable[tuple[int, Place]] = (),
    dead: Iterable[tuple[Place, Sequence[int]]] = (),
    opt_level: str = "speed",
    checked_allocator: bool = False,
    name: str = "repro.py",
) -> str:
    """Return the text of a Python file that reproduces a finding alone.

    Args:
        program: as JSON has it.
        release: that showed the finding.
        seen: what it showed, in a few words: `crash SIGSEGV`.
        story: more words for the head of the file.
        expected: places, and the values that the engine has to hand over there.
        sizes: places, and the sizes of tables that the engine has to tell there.
        traps: the places whose calls trap; None if any may.
        owned: values, and the place before which each may not be destroyed.
        dead: places of collections, and the values that have to be destroyed when they are over.
        opt_level: of the compiler.
        checked_allocator: whether it takes the C library's checks to show the finding.
        name: of the file.
    """
    bodies, modules = _parts()
    script = "".join(f"    {_line(action)}\n" for action in program["script"])
    imports = "".join(f"    {_list(actions, f'call {number}')}" for number, actions in enumerate(program.get("imports", [])))
    destructors = "".join(f'    "{value}": {_list(actions, f"value {value}")}' for value, actions in program.get("destructors", {}).items())
    head = _HEAD.format(
        title=f"wasmtime {release}: {seen}.",
        release=release,
        name=name,
        story=(story or "Made by drc-check from a run of its model.").replace("\\", "\\\\").replace('"""', "'''"),
        wat=program["wat"].strip(),
        script=script,
        imports=imports,
        destructors=destructors,
        expected="".join(f"    [{_literal(list(where))}, {_literal(list(values))}],\n" for where, values in expected),
        sizes="".join(f"    [{_literal(list(where))}, {size}],\n" for where, size in sizes),
        traps=None if traps is None else _literal([list(where) for where in traps]),
        owned="".join(f"    {value}: {_literal(list(where))},\n" for value, where in owned),
        dead="".join(f"    [{_literal(list(where))}, {_literal(list(values))}],\n" for where, values in dead),
        values=program["values"],
    )
    if '"""' in program["wat"] or program["wat"].rstrip().endswith('"'):
        raise ValueError("the module's text cannot stand in a Python string")
    wanted = {name: value for name, value in environment(checked_allocator=checked_allocator).items() if name in _VARIABLES}
    tail = _TAIL.replace("ENVIRONMENT", _literal(wanted)).replace("OPT_LEVEL", opt_level)
    # `from __future__` may only stand behind the docstring.
    end_of_docstring = head.index('"""\n\nWAT') + 4
    imported = "\nfrom __future__ import annotations\n\n" + "".join(f"{line}\n" for line in modules)
    return head[:end_of_docstring] + imported + head[end_of_docstring:] + bodies + tail


def _parts() -> tuple[str, list[str]]:
    """The text of all parts without imports, docstrings and abstract methods, and the imports of the standard library that they need."""
    bodies: list[str] = []
    modules: set[str] = set()
    names: dict[str, set[str]] = {}
    for part, omitted in PARTS.items():
        text = (HERE / part).read_text(encoding="utf-8")
        lines = text.splitlines()
        tree = ast.parse(text)
        dropped = set(_dropped_lines(tree))
        for node in tree.body:
            if isinstance(node, ast.Import):
                modules |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                if not (node.module or "").startswith(("fuzz", "__future__")):
                    names.setdefault(node.module or "", set()).update(alias.name for alias in node.names)
            elif not (_is_main(node) or _name(node) in omitted):
                span = range(_first_line(node), _last_line(node) + 1)
                kept = [lines[number - 1].partition("  # noqa")[0] for number in span if number not in dropped]
                gap = ["", ""] if isinstance(node, ast.ClassDef | ast.FunctionDef) else []
                bodies += [*gap, *kept] if kept else []
    # These are for what is left out.
    imports = [f"import {module}" for module in sorted(modules - {"argparse", "importlib", "signal"})]
    names["abc"].discard("abstractmethod")
    imports += [f"from {module} import {', '.join(sorted(names[module], key=str.lower))}" for module in sorted(names)]
    return "\n".join(bodies).lstrip() + "\n", imports


def _dropped_lines(tree: ast.Module) -> Iterator[int]:
    """Lines of docstrings, of strings that document a name, and of abstract methods with the empty line behind them."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and any(ast.unparse(decorator) == "abstractmethod" for decorator in node.decorator_list):
            yield from range(_first_line(node), _last_line(node) + 2)
        body = getattr(node, "body", [])
        for place, inner in enumerate(body if isinstance(body, list) and len(body) > 1 else []):
            if isinstance(inner, ast.Expr) and isinstance(inner.value, ast.Constant) and isinstance(inner.value.value, str):
                until = body[place + 1].lineno if place == 0 and not isinstance(node, ast.Module) else _last_line(inner) + 1
                yield from range(inner.lineno, until)


def _first_line(node: ast.stmt) -> int:
    decorators: list[ast.expr] = getattr(node, "decorator_list", [])
    return min([node.lineno, *(decorator.lineno for decorator in decorators)])


def _last_line(node: ast.stmt) -> int:
    return node.end_lineno or node.lineno


def _name(node: ast.stmt) -> str:
    """What a statement at the top of a module defines."""
    target = node.target if isinstance(node, ast.AnnAssign) else node
    return str(getattr(target, "name", getattr(target, "id", "")))


def _is_main(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and "__main__" in ast.unparse(node.test)


def _literal(data: Any) -> str:  # noqa: ANN401 - JSON
    """JSON as Python: only null differs, as the data has no booleans and no text with such a word."""
    return repr(data).replace("'", '"')


def _line(action: Action) -> str:
    """One action of a list, with what it means if its form does not say so."""
    words = _words(action)
    return f"{_literal(action)},{f'  # {words}' if words else ''}"


def _list(actions: list[Action], what: str) -> str:
    """A list of actions as an item of a table."""
    if not actions:
        return f"[],  # {what}\n"
    inner = "".join(f"        {_line(action)}\n" for action in actions)
    return f"[  # {what}\n{inner}    ],\n"


def _words(action: Action) -> str:
    kind, *operands = action
    moved = operands[-1] if kind in {"call", "return"} and len(operands) == (4 if kind == "call" else 2) else []
    leaves = f"; the host keeps no handle to {_names(moved)}" if moved else ""
    if kind == "new":
        return f"makes value {operands[0]}"
    if kind == "drop":
        return f"gives up the handle to value {operands[0]}"
    if kind == "call":
        return f"calls {operands[1]} of instance {operands[0]} with {_names(operands[2]) or 'nothing'}{leaves}"
    if kind == "return":
        return f"returns {_names(operands[0]) or 'nothing'}{leaves}"
    if kind == "gc":
        return "collects"
    return ""


def _names(values: list[Any]) -> str:
    return ", ".join("null" if value is None else f"value {value}" if isinstance(value, int) else str(value[1]) for value in values)

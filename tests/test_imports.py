"""Imports point one way, and what must not reach a package does not: read from the source with `ast`.

`violations(root)` judges any source tree, so that each rule is also seen to fail on a planted violation.
"""

import ast
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

LINES_MAX = 500
FUNCTION_LINES_MAX = 70

# Who may import whom. Each package may import itself. `drc` is the only file that knows all packages.
PACKAGES = frozenset({"model", "impl", "fuzz", "proofs"})
DIRECTIONS = {
    "model": frozenset[str](),
    "impl": frozenset[str](),
    "fuzz": frozenset({"model", "impl"}),
    "proofs": frozenset({"impl"}),
    "bench": frozenset({"model", "impl", "fuzz"}),
    "drc": PACKAGES,
    "tests": PACKAGES | {"drc", "bench"},
}

# Where a library may be imported: path prefixes.
FENCES = {
    "ctypes": ("impl/arena.py", "impl/layout.py", "fuzz/compiled/", "fuzz/releases/", "bench/laps.py", "tests/"),
    "z3": ("proofs/", "tests/"),
    "atheris": ("fuzz/targets/",),
    "hypothesis": ("fuzz/machines/", "tests/"),
}

# A run is a function of its choices: none of these where it is made. `id` and `hash` are the built-in functions.
DETERMINISTIC = ("model/", "impl/", "fuzz/driver.py", "fuzz/choosers.py")
CLOCKS_AND_DICE = frozenset({"random", "time", "secrets", "uuid", "datetime"})
ADDRESS_FUNCTIONS = frozenset({"id", "hash"})

# A verdict by `assert` would vanish under `python -O`.
WITHOUT_ASSERT = ("model/", "impl/", "fuzz/")

# Made by tools, not source.
NOT_SOURCE = frozenset({"build", "dist"})


@dataclass(frozen=True)
class Import:
    """One imported module, absolute, and the line that imports it."""

    module: str
    line: int

    @property
    def top(self) -> str:
        return self.module.partition(".")[0]


def violations(root: Path) -> list[str]:
    """Every broken rule in the source tree at `root`, as `path:line: reason`, sorted by path and line."""
    found: list[tuple[str, int, str]] = []
    for path in _sources(root):
        name = path.relative_to(root).as_posix()
        # Like the compiler, this honours a coding declaration.
        with tokenize.open(path) as file:
            text = file.read()
        try:
            tree = ast.parse(text)
        except SyntaxError as error:
            found.append((name, error.lineno or 1, f"cannot be parsed: {error.msg}"))
            continue
        found += [(name, line, reason) for line, reason in _judge(name, text, tree)]
    return [f"{name}:{line}: {reason}" for name, line, reason in sorted(found)]


def _sources(root: Path) -> Iterator[Path]:
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).parts
        if parts[0] not in NOT_SOURCE and not any(part.startswith(".") for part in parts):
            yield path


def _judge(name: str, text: str, tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Lines and reasons of the rules that one file breaks."""
    imports = list(_imports(name, tree))
    yield from _directions(name, imports)
    yield from _fences(name, imports)
    yield from _sizes(text, tree)
    if name.startswith(DETERMINISTIC):
        yield from _nondeterminism(tree, imports)
    if name.startswith(WITHOUT_ASSERT):
        yield from ((node.lineno, "assert: raise an exception") for node in ast.walk(tree) if isinstance(node, ast.Assert))
    if name == "fuzz/__init__.py":
        yield from ((found.line, f"runs before instrumentation, so imports nothing: {found.module}") for found in imports)
    if name.startswith("tests/") and name.endswith("/__init__.py"):
        yield 1, "tests are files, not a package"


def _imports(name: str, tree: ast.Module) -> Iterator[Import]:
    """All imports of a file: at any depth, relative ones resolved, and dynamic ones that name a literal."""
    package = name.split("/")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            # At the top of the tree, `from . import fuzz` names the module itself.
            for imported in [module] if module else [alias.name for alias in node.names]:
                yield Import(imported, node.lineno)
        elif isinstance(node, ast.Call) and node.args and _called(node) in {"import_module", "__import__"}:
            target = node.args[0]
            if isinstance(target, ast.Constant) and isinstance(target.value, str):
                yield Import(target.value, node.lineno)


def _called(call: ast.Call) -> str:
    if isinstance(call.func, ast.Attribute):
        return call.func.attr
    return call.func.id if isinstance(call.func, ast.Name) else ""


def _directions(name: str, imports: list[Import]) -> Iterator[tuple[int, str]]:
    own = name.partition("/")[0].removesuffix(".py")
    if own not in DIRECTIONS:
        yield 1, f"{own} is no part of the design: give it a place in DIRECTIONS"
        return
    for found in imports:
        if found.top in DIRECTIONS and found.top != own and found.top not in DIRECTIONS[own]:
            yield found.line, f"{own} imports {found.module}"


def _fences(name: str, imports: list[Import]) -> Iterator[tuple[int, str]]:
    for found in imports:
        places = FENCES.get(found.top)
        if places is not None and not name.startswith(places):
            yield found.line, f"{found.top} outside {' and '.join(places)}"


def _nondeterminism(tree: ast.Module, imports: list[Import]) -> Iterator[tuple[int, str]]:
    for found in imports:
        if found.top in CLOCKS_AND_DICE:
            yield found.line, f"{found.top}: all nondeterminism goes through a chooser"
    # The name may be passed on without a call: `sorted(xs, key=id)`. A function of the file's own is another matter.
    names = ADDRESS_FUNCTIONS - _bound_at_top(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in names:
            yield node.lineno, f"{node.id}: differs between processes"


def _bound_at_top(tree: ast.Module) -> set[str]:
    """The names that a module's own functions and imports bind."""
    bound: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            bound.add(node.name)
        elif isinstance(node, ast.ImportFrom):
            bound |= {alias.asname or alias.name for alias in node.names}
    return bound


def _sizes(text: str, tree: ast.Module) -> Iterator[tuple[int, str]]:
    count = len(text.splitlines())
    if count > LINES_MAX:
        yield LINES_MAX + 1, f"{count} lines, more than {LINES_MAX}: the idea is two ideas"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            count = _body_lines(node)
            if count > FUNCTION_LINES_MAX:
                yield node.lineno, f"{node.name} has {count} lines, more than {FUNCTION_LINES_MAX}"


def _body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function from `def` on, less its docstring: worked examples are welcome."""
    count = (function.end_lineno or function.lineno) - function.lineno + 1
    if ast.get_docstring(function, clean=False) is not None:
        docstring = function.body[0]
        count -= (docstring.end_lineno or docstring.lineno) - docstring.lineno + 1
    return count


def test_the_project_breaks_no_rule() -> None:
    assert violations(ROOT) == []


def test_each_package_of_the_design_is_there() -> None:
    """Without this, a wrong root would pass as a tree without violations."""
    assert [package for package in sorted(PACKAGES) if not (ROOT / package / "__init__.py").is_file()] == []


def _plant(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


LEGAL = {
    "drc.py": "import fuzz.driver, impl, model, proofs.words\nimport time\n",
    "model/ops.py": "import enum\nfrom model import limits\nfrom .limits import Limits\n",
    "model/limits.py": "class Limits:\n    def hash(self): return self.state.hash()\n",
    "impl/arena.py": "import ctypes\n",
    "impl/layout.py": "from ctypes import sizeof\n",
    "impl/hash_set.py": "def hash(externref): return externref\ndef find(externref): return hash(externref)\n",
    "impl/collector.py": "from impl.hash_set import hash\nhome = hash(1)\n",
    "fuzz/__init__.py": '"""Nothing but a docstring."""\n',
    "fuzz/driver.py": "from . import choosers\nfrom impl import runtime\nimport model\n",
    "fuzz/campaign.py": "import time\nkey = hash('text')\nfuzzy = object()\n",
    "fuzz/machines/runtime.py": "from hypothesis import strategies\nfrom ..driver import Driver\n",
    "fuzz/targets/runtime.py": "import atheris\n",
    "fuzz/compiled/library.py": "import ctypes\n",
    "proofs/words.py": "import z3\nfrom impl import layout\nassert layout\n",
    "tests/test_words.py": "import z3, hypothesis, drc, proofs, model\nassert z3\n",
    "bench/lockstep.py": "import fuzz.driver\nimport time\n",
    ".venv/lib/anything.py": "import fuzz, ctypes\n",
    "build/lib/model/ops.py": "import impl\n",
}


CTYPES = "1: ctypes outside impl/arena.py and impl/layout.py and fuzz/compiled/ and fuzz/releases/ and bench/laps.py and tests/"


def test_a_legal_tree_breaks_no_rule(tmp_path: Path) -> None:
    for name, text in LEGAL.items():
        _plant(tmp_path, name, text)
    assert violations(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("model/a.py", "import impl\n", ["1: model imports impl"]),
        ("model/a.py", "import os, fuzz.driver\n", ["1: model imports fuzz.driver"]),
        ("model/a.py", "from ..impl import layout\n", ["1: model imports impl"]),
        ("model/a.py", "from .. import proofs\n", ["1: model imports proofs"]),
        ("model/sub/a.py", "from ...fuzz.driver import Driver\n", ["1: model imports fuzz.driver"]),
        ("model/a.py", "def f():\n    import drc\n", ["2: model imports drc"]),
        ("impl/a.py", "\nfrom model.ops import Op\n", ["2: impl imports model.ops"]),
        ("impl/a.py", "if TYPE_CHECKING:\n    import model\n", ["2: impl imports model"]),
        ("impl/a.py", "import importlib\nimportlib.import_module('proofs.words')\n", ["2: impl imports proofs.words"]),
        ("impl/a.py", "__import__('fuzz')\n", ["1: impl imports fuzz"]),
        ("fuzz/a.py", "import proofs\n", ["1: fuzz imports proofs"]),
        ("fuzz/a.py", "import drc\n", ["1: fuzz imports drc"]),
        ("fuzz/a.py", "import tests.conftest\n", ["1: fuzz imports tests.conftest"]),
        ("proofs/a.py", "import model\n", ["1: proofs imports model"]),
        ("proofs/a.py", "from fuzz import driver\n", ["1: proofs imports fuzz"]),
        ("bench/a.py", "import drc\n", ["1: bench imports drc"]),
        ("common/a.py", "import os\n", ["1: common is no part of the design: give it a place in DIRECTIONS"]),
        ("common.py", "import os\n", ["1: common is no part of the design: give it a place in DIRECTIONS"]),
        ("impl/a.py", "import ctypes.util\n", [CTYPES]),
        ("fuzz/a.py", "from ctypes import c_uint64\n", [CTYPES]),
        ("fuzz/a.py", "import z3\n", ["1: z3 outside proofs/ and tests/"]),
        ("impl/a.py", "from z3 import Solver\n", ["1: z3 outside proofs/ and tests/"]),
        ("fuzz/a.py", "import atheris\n", ["1: atheris outside fuzz/targets/"]),
        ("drc.py", "import atheris\n", ["1: atheris outside fuzz/targets/"]),
        ("fuzz/targets/a.py", "import hypothesis\n", ["1: hypothesis outside fuzz/machines/ and tests/"]),
        ("model/a.py", "import random\n", ["1: random: all nondeterminism goes through a chooser"]),
        ("impl/a.py", "from time import monotonic\n", ["1: time: all nondeterminism goes through a chooser"]),
        ("fuzz/driver.py", "import time as t\n", ["1: time: all nondeterminism goes through a chooser"]),
        ("fuzz/choosers.py", "import random\n", ["1: random: all nondeterminism goes through a chooser"]),
        ("model/a.py", "x = id(1)\n", ["1: id: differs between processes"]),
        ("model/a.py", "x = hash('a')\n", ["1: hash: differs between processes"]),
        ("impl/a.py", "x = sorted([], key=id)\n", ["1: id: differs between processes"]),
        ("impl/a.py", "class C:\n    def hash(self): return hash(self.x)\n", ["2: hash: differs between processes"]),
        ("fuzz/driver.py", "x = hash((1, 2))\n", ["1: hash: differs between processes"]),
        ("fuzz/__init__.py", "import os\n", ["1: runs before instrumentation, so imports nothing: os"]),
        ("fuzz/__init__.py", "from . import driver\n", ["1: runs before instrumentation, so imports nothing: fuzz"]),
        ("tests/sub/__init__.py", "", ["1: tests are files, not a package"]),
        ("tests/__init__.py", "", ["1: tests are files, not a package"]),
        ("model/a.py", "assert True\n", ["1: assert: raise an exception"]),
        ("impl/a.py", "def f(x):\n    assert x\n    return x\n", ["2: assert: raise an exception"]),
        ("fuzz/machines/a.py", "assert True\n", ["1: assert: raise an exception"]),
        ("impl/a.py", "\n" * 501, ["501: 501 lines, more than 500: the idea is two ideas"]),
        ("tests/a.py", "\n" * 500, []),
        ("drc.py", "def f():\n" + "    pass\n" * 70, ["1: f has 71 lines, more than 70"]),
        ("drc.py", "def f():\n" + "    pass\n" * 69, []),
        ("drc.py", "def f():\n    '''A.\n\n    B.\n    '''\n" + "    pass\n" * 69, []),
        ("impl/a.py", "x = (\n", ["1: cannot be parsed: '(' was never closed"]),
        (
            "impl/a.py",
            "import model, random\nassert id\n",
            [
                "1: impl imports model",
                "1: random: all nondeterminism goes through a chooser",
                "2: assert: raise an exception",
                "2: id: differs between processes",
            ],
        ),
    ],
)
def test_a_planted_violation_is_found(tmp_path: Path, name: str, text: str, expected: list[str]) -> None:
    for legal, legal_text in LEGAL.items():
        _plant(tmp_path, legal, legal_text)
    _plant(tmp_path, name, text)
    assert violations(tmp_path) == [f"{name}:{line}" for line in expected]

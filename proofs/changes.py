"""Every single change of an operator, comparison or constant in the proved files is tried: an obligation fails, or the change is listed.

A proof that holds whatever the code says proves nothing. Each change is applied to a copy of `impl` and judged in a process of its own:
by the obligations about the function that is changed, or by all of the subject if it is a constant. What the prover cannot even build
counts as found. A change that no obligation notices *survives*: either it alters nothing, or something is not proved.
"""

from __future__ import annotations

import argparse
import ast
import multiprocessing
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Final

import z3

ROOT: Final = Path(__file__).resolve().parent.parent
SECONDS_MAX: Final = 600.0
# Questions get less time than in a proof: one that takes so long is no longer the proof that it was.
SECONDS_OF_A_QUESTION: Final = 60.0
SURVIVES: Final = "survives: "

# Not changed: `create` sets up a memory for a registry alone, of a size that nothing depends on.
NOT_CHANGED: Final = frozenset({"create"})
# What stands for the constants of a module among its functions, and what the classes are whose methods are over words.
CONSTANTS: Final = ""
CLASSES: Final = frozenset({"VMOffsets", "StackMap", "StackMapRegistry"})
CHUNK_ARITHMETIC: Final = frozenset({CONSTANTS, "table_init", "try_insert", "num_filled_in_bump_chunk", "elements", "sweep", "sweep_slot"})
# By module: the functions and classes to change, all of them if none is named, and where the obligations about them are.
TARGETS: Final[dict[str, tuple[frozenset[str], tuple[str, ...]]]] = {
    "layout": (frozenset(), ("proofs.layout",)),
    "stack_maps": (
        frozenset(),
        # The cheapest first: what notices a changed constant is then found soon.
        ("proofs.images", "proofs.registry_growth", "proofs.image_loops", "proofs.registration", "proofs.registry_arrays", "proofs.lookup"),
    ),
    "activations_table": (CHUNK_ARITHMETIC, ("proofs.memory_operations", "proofs.chunk")),
}

OPERATORS: Final[dict[type[ast.AST], tuple[type[ast.AST], ...]]] = {
    ast.Lt: (ast.LtE, ast.Gt),
    ast.LtE: (ast.Lt, ast.GtE),
    ast.Gt: (ast.GtE, ast.Lt),
    ast.GtE: (ast.Gt, ast.LtE),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Add: (ast.Sub,),
    ast.Sub: (ast.Add,),
    ast.Mult: (ast.Add,),
    ast.LShift: (ast.RShift,),
    ast.RShift: (ast.LShift,),
    ast.BitAnd: (ast.BitOr,),
    ast.BitOr: (ast.BitAnd,),
    ast.And: (ast.Or,),
    ast.Or: (ast.And,),
}


@dataclass(frozen=True)
class Change:
    """One change of one file.

    Args:
        module: Of `impl`.
        function: Where it is; empty for a constant of the module.
        line: Of the file.
        what: In words.
        text: The whole file, changed.
    """

    module: str
    function: str
    line: int
    what: str
    text: str

    def __str__(self) -> str:
        return f"impl/{self.module}.py:{self.line}: {self.function or 'constant'}: {self.what}"


def changes(module: str, text: str, only: frozenset[str]) -> Iterator[Change]:
    """Make every single change of a file's functions over words, and of the constants that they use.

    Args:
        module: Its name.
        text: Its text.
        only: The functions and classes to change, `CONSTANTS` for constants; all of them if empty.
    """
    tree = ast.parse(text)
    lines = text.splitlines()
    for statement in tree.body:
        if isinstance(statement, ast.FunctionDef) or (isinstance(statement, ast.ClassDef) and statement.name in CLASSES):
            name = statement.name
        elif isinstance(statement, ast.AnnAssign):
            name = CONSTANTS
        else:
            continue
        if only and name not in only:
            continue
        for node in list(_nodes(statement)):
            for what, changed in _changed(node):
                kept = {field: getattr(node, field) for field in changed}
                for field, value in changed.items():
                    setattr(node, field, value)
                # Only the statement is written anew: the file is long, and there are hundreds of changes.
                other = [*lines[: statement.lineno - 1], ast.unparse(statement), *lines[statement.end_lineno or 0 :], ""]
                for field, value in kept.items():
                    setattr(node, field, value)
                line = getattr(node, "lineno", statement.lineno)
                yield Change(module, name, line, what, "\n".join(other))


def _nodes(node: ast.AST) -> Iterator[ast.AST]:
    """Visit a node and all below it, outer ones first, but not what is not to be changed, and no annotation: none is evaluated."""
    level = [node]
    while level:
        yield from level
        level = [
            child
            for above in level
            for child in ast.iter_child_nodes(above)
            if getattr(child, "name", None) not in NOT_CHANGED
            and child not in (getattr(above, "annotation", None), getattr(above, "returns", None))
        ]


def _changed(node: ast.AST) -> Iterator[tuple[str, dict[str, object]]]:
    """Say what a node may become, as values of its fields."""
    if isinstance(node, ast.Compare):
        for place, operator in enumerate(node.ops):
            for other in OPERATORS.get(type(operator), ()):
                ops = [*node.ops[:place], other(), *node.ops[place + 1 :]]
                yield f"{ast.unparse(node)}: {type(operator).__name__} becomes {other.__name__}", {"ops": ops}
    elif isinstance(node, ast.BinOp | ast.AugAssign | ast.BoolOp):
        for other in OPERATORS.get(type(node.op), ()):
            yield f"{ast.unparse(node)}: {type(node.op).__name__} becomes {other.__name__}", {"op": other()}
    elif isinstance(node, ast.Constant) and type(node.value) is int:
        yield f"{node.value} becomes {node.value + 1}", {"value": node.value + 1}
        if node.value:
            yield f"{node.value} becomes {node.value - 1}", {"value": node.value - 1}


def judge(change: Change, folder: Path, answers: multiprocessing.SimpleQueue[str]) -> None:
    """In a process of its own: import `impl` from a folder, and put the name of the first obligation that fails into a queue."""
    sys.dont_write_bytecode = True
    sys.path.insert(0, str(folder))
    # What this process inherits may have been imported from the unchanged text.
    for name in [name for name in sys.modules if name.partition(".")[0] in ("impl", "proofs")]:
        del sys.modules[name]
    try:
        answers.put(_noticed(change))
    except Exception as error:  # noqa: BLE001 - whatever the changed code does, no proof went through
        answers.put(f"{type(error).__name__} while the proofs are built")


def _noticed(change: Change) -> str:
    """Return the name of the first obligation that fails, or nothing."""
    from proofs.obligations import Obligation
    from proofs.solving import check, conjuncts

    def about(obligation: Obligation) -> bool:
        return change.function in {function.__qualname__.partition(".")[0] for function in obligation.functions}

    chosen: list[Obligation] = [obligation for name in TARGETS[change.module][1] for obligation in import_module(name).obligations()]
    for obligation in sorted(chosen, key=lambda obligation: not about(obligation)):
        if obligation.expected.value != "proved" or (change.function and not about(obligation)):
            continue
        try:
            claims = obligation.claims()
        except Exception as error:  # noqa: BLE001 - see above
            return f"{obligation.name} ({type(error).__name__})"
        for claim in claims:
            for part in conjuncts(claim.goal):
                asked = z3.Solver()
                asked.add(*claim.assumptions.values(), z3.Not(part))
                if check(asked, SECONDS_OF_A_QUESTION) != z3.unsat:
                    return obligation.name
    return ""


def try_change(change: Change) -> str:
    """Apply a change to a copy of `impl` and return which obligation notices it, or nothing."""
    context = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory(prefix="drc-change-") as name:
        folder = Path(name)
        shutil.copytree(ROOT / "impl", folder / "impl", ignore=shutil.ignore_patterns("__pycache__"))
        (folder / "impl" / f"{change.module}.py").write_text(change.text, encoding="utf-8")
        answers: multiprocessing.SimpleQueue[str] = context.SimpleQueue()
        process = context.Process(target=judge, args=(change, folder, answers))
        process.start()
        process.join(SECONDS_MAX)
        if process.is_alive():
            process.kill()
            process.join()
            return "takes too long to prove"
        noticed: str = "the process died" if answers.empty() else answers.get()
        return noticed


def main(arguments: Sequence[str] | None = None) -> int:
    """Try all changes, print the survivors, and return 0."""
    parser = argparse.ArgumentParser(prog="python -m proofs.changes", description=__doc__)
    parser.add_argument("modules", nargs="*", choices=[[], *TARGETS], help="layout, stack_maps, activations_table; all by default")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--every", type=int, default=1, help="try only every n-th change")
    parser.add_argument("--function", action="append", help="try only changes of this function or class, or of `constant`; may be repeated")
    parser.add_argument("--again", type=Path, help="try only changes that survive in this file, the output of an earlier run")
    chosen = parser.parse_args(arguments)
    found = [
        change
        for module in chosen.modules or TARGETS
        for change in changes(module, (ROOT / "impl" / f"{module}.py").read_text(encoding="utf-8"), TARGETS[module][0])
        if not chosen.function or (change.function or "constant") in chosen.function
    ]
    if chosen.again:
        survived = {line.removeprefix(SURVIVES) for line in chosen.again.read_text(encoding="utf-8").splitlines()}
        found = [change for change in found if str(change) in survived]
    found = found[:: chosen.every]
    began = time.monotonic()
    survivors = 0
    with ThreadPoolExecutor(chosen.jobs) as pool:
        for change, noticed in zip(found, pool.map(try_change, found), strict=True):
            sys.stderr.write(f"{change}: {noticed or 'SURVIVES'}\n")
            if not noticed:
                survivors += 1
                sys.stdout.write(f"{SURVIVES}{change}\n")
    sys.stdout.write(f"{len(found)} changes, {len(found) - survivors} noticed, {survivors} survive\n")
    sys.stderr.write(f"{time.monotonic() - began:.0f} s\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

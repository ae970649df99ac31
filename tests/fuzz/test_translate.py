"""What the translator writes is plain Python before it is compiled; run so, it counts what the interpreted search counts."""

from __future__ import annotations

import ast
import builtins
from types import SimpleNamespace
from typing import Any

import pytest

from fuzz.check_scopes import CHECK_SCOPES
from fuzz.compiled import machine, package, search
from fuzz.compiled.rewriting import Untranslatable
from fuzz.compiled.seams import seams
from fuzz.compiled.translate import Translator
from fuzz.compiled.world import BOUND_NAMES, REGISTERS, bound_at
from fuzz.driver import Driver
from fuzz.explore import Explorer
from fuzz.states import JointStates
from impl.errors import AllocationFailed, OutOfBounds, Panicked, RegistrationRefused
from impl.runtime import Runtime
from model.choose import Exhausted

numpy = pytest.importorskip("numpy")


def text() -> str:
    """The generated functions, without what makes numba compile them."""
    return package.source().removeprefix(package._HEAD).removesuffix(package._TAIL)


def namespace(found: dict[str, Any]) -> dict[str, Any]:
    """The generated functions as Python; `found` gets the arrays that a call through an address works on."""

    def same(function: Any) -> Any:
        return function

    class CompiledVerdict(Exception):
        pass

    def call_at(address: int, _mem: int, _mem_words: int, w_at: int, _w_words: int, first: int, second: int) -> int:
        mem, w = found["mem"], found["w"]
        try:
            if address == 1:
                space["impl__externref__drop_and_dealloc__itself"](mem, w, first)
            else:
                row = (int(first) - w_at) // 8
                space["fuzz__driver__Driver__perform__itself"](mem, w, w[row : row + second])
        except Exception:  # noqa: BLE001  # as the compiled text does
            return 1
        return 0

    space: dict[str, Any] = dict.fromkeys(("jit", "jit_inline", "jit_unchecked", "entry"), same)
    exceptions = (AllocationFailed, OutOfBounds, Panicked, RegistrationRefused, Exhausted, CompiledVerdict)
    space |= {kind.__name__: kind for kind in exceptions} | {"call_at": call_at}
    exec(compile(text(), "generated", "exec"), space)  # noqa: S102  # the generated file itself
    mixed = space["fuzz__compiled__kernel__mix"]
    space["fuzz__compiled__kernel__mix"] = lambda place, word: mixed(numpy.int64(place), numpy.int64(word))
    return space


@pytest.fixture(scope="module")
def arrays() -> dict[str, Any]:
    return {}


@pytest.fixture(scope="module")
def uncompiled(arrays: dict[str, Any]) -> dict[str, Any]:
    return namespace(arrays)


def test_every_name_that_the_generated_file_uses_is_there(uncompiled: dict[str, Any]) -> None:
    tree = ast.parse(text())
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    assert len(functions) > 450
    for function in functions:
        known = {argument.arg for argument in function.args.args}
        known |= {node.id for node in ast.walk(function) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
        used = {node.id for node in ast.walk(function) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
        assert not {name for name in used - known if name not in uncompiled and not hasattr(builtins, name)}, function.name


def test_no_message_and_no_object_is_left() -> None:
    for node in ast.walk(ast.parse(text())):
        assert not isinstance(node, ast.JoinedStr | ast.Dict | ast.Set | ast.Lambda | ast.GeneratorExp), ast.unparse(node)
        if isinstance(node, ast.Attribute):
            assert ast.unparse(node).endswith((".ctypes", ".ctypes.data")), ast.unparse(node)


@pytest.mark.parametrize("scope", ["segments", "modules", "copies", "nesting"])
def test_run_as_python_it_counts_what_the_interpreted_search_counts(
    scope: str, uncompiled: dict[str, Any], arrays: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = machine.Machine

    def make(limits: Any) -> machine.Machine:
        new = made(limits)
        arrays.update(mem=new.mem, w=new.w)
        return new

    addresses = SimpleNamespace(drop_at=SimpleNamespace(address=1), perform_at=SimpleNamespace(address=2))
    monkeypatch.setattr(machine, "load", lambda: addresses)
    monkeypatch.setattr(search, "Machine", make)
    monkeypatch.setattr(search, "compiled", lambda function: uncompiled[f"{function.__module__}.{function.__name__}".replace(".", "__")])
    # Words wrap, as they do in machine code.
    with numpy.errstate(over="ignore"):
        found = search.search(CHECK_SCOPES[scope])
    oracle = Explorer(JointStates(CHECK_SCOPES[scope], symmetry=False)).run()
    assert found.complete
    assert (found.states, found.transitions, found.depth) == (oracle.states, oracle.transitions, oracle.depth)
    assert found.counts == oracle.counts
    assert found.shown == oracle.shown


def test_what_has_no_compiled_meaning_is_named() -> None:
    translator = Translator(seams(), {"driver": Driver, "runtime": Runtime})
    translator.add(Driver.divergence)
    with pytest.raises(Untranslatable, match=r"Driver\.divergence, its line 3"):
        translator.translate()


def test_a_bound_has_one_place_in_the_world() -> None:
    assert len({bound_at(name) for name in BOUND_NAMES}) == len(BOUND_NAMES)
    assert bound_at("roots") != bound_at("shape.roots")
    with pytest.raises(KeyError):
        bound_at("moons")
    assert len(set(REGISTERS.values())) == len(REGISTERS)

"""The table of operations is complete, its texts are unique, and nothing that has to know each kind can forget one."""

import pytest

from model.domains import DOMAINS, LONGEST
from model.ops import ALL_KINDS, BY_KIND, BY_TEXT, SPECS, Context, Domain, Kind, Need, by_kind


def test_each_kind_has_one_row_and_one_text() -> None:
    assert list(SPECS) == sorted(Kind)
    assert [BY_TEXT[BY_KIND[kind].text] for kind in Kind] == list(Kind)
    assert frozenset(Kind) == ALL_KINDS


def test_texts_are_the_kinds_own_names() -> None:
    assert {kind.name.lower(): SPECS[kind].text for kind in Kind} == {kind.name.lower(): kind.name.lower() for kind in Kind}


def test_operands_have_different_names() -> None:
    for spec in SPECS.values():
        names = [name for name, _ in (*spec.operands, *((spec.items,) if spec.items else ()))]
        assert len(names) == len(set(names))


def test_each_domain_has_its_function_and_each_list_its_length() -> None:
    assert len(DOMAINS) == len(Domain)
    assert {spec.items[1] for spec in SPECS.values() if spec.items} == set(LONGEST)


def test_only_ways_out_of_a_context_are_closing() -> None:
    closing = {kind for kind, spec in SPECS.items() if spec.closing}
    assert closing == {Kind.PANIC, Kind.RETURN_IMPORT, Kind.END, Kind.RETURN, Kind.TRAP}


def test_what_may_collect_can_release() -> None:
    assert [spec.text for spec in SPECS.values() if spec.may_collect and not spec.can_release] == []


def test_whatever_may_collect_in_wasm_says_what_is_live() -> None:
    for kind, spec in SPECS.items():
        if spec.contexts == (Context.WASM,) and (spec.can_release or spec.may_collect):
            assert "live" in [name for name, _ in spec.operands], kind.name


def test_host_operations_are_possible_in_every_context_that_runs_host_code() -> None:
    """Re-entrancy needs no special case: an import and a destructor do what the host does."""
    host = {kind for kind, spec in SPECS.items() if Context.HOST in spec.contexts}
    for context in (Context.IMPORT, Context.DESTRUCTOR):
        assert {kind for kind in host if context not in SPECS[kind].contexts} == {Kind.TEARDOWN_STORE}


def test_needs_are_single_bits() -> None:
    assert all(need == 0 or need & (need - 1) == 0 for need in Need)


def test_a_table_over_kinds_that_lacks_one_is_refused() -> None:
    table = dict.fromkeys(Kind, 0)
    assert by_kind(table, "a table") == [0] * len(Kind)
    del table[Kind.GC]
    with pytest.raises(ImportError) as raised:
        by_kind(table, "a table")
    assert str(raised.value) == f"a table knows {len(Kind) - 1} kinds of {len(Kind)}; missing: ['GC']"


def test_a_table_over_kinds_that_has_a_foreign_one_is_refused() -> None:
    table: dict[Kind, int] = dict.fromkeys(Kind, 0)
    table[len(Kind)] = 0  # type: ignore[index]  # what a reordered enumeration would leave behind
    with pytest.raises(ImportError):
        by_kind(table, "a table")

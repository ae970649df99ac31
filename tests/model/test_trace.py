"""A trace is read as it is written, whatever the run, and what is no trace is refused with the number of its line."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzz.choosers import Seeded
from fuzz.driver import Driver
from model.limits import BOUNDS, SCOPES
from model.ops import NULL, Kind
from model.trace import SIZE_MAX_BYTES, Trace, TraceError, format_row, format_trace, header, parse, parse_bytes

CALLS = SCOPES["calls"]
HEAD = header(CALLS) + "\n"


@pytest.mark.parametrize("scope", SCOPES)
def test_what_a_run_did_is_read_as_it_was_written(scope: str) -> None:
    outcome = Driver(SCOPES[scope]).run(Seeded(len(scope)), 150)
    trace = Trace(SCOPES[scope], outcome.rows)
    text = format_trace(trace, outcome.depths, ("a note", "another"))
    assert parse(text) == trace
    assert parse_bytes(text.encode()) == trace
    assert format_trace(parse(text), outcome.depths, ("a note", "another")) == text


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ((Kind.GC,), "gc"),
        ((Kind.NEW, 2, 0, 1), "new layout=2 owns=[0 1]"),
        ((Kind.NEW, 0), "new layout=0 owns=[]"),
        ((Kind.CALL_WASM, 0, 1, 3, NULL), "call_wasm instance=0 function=1 args=[3 null]"),
        ((Kind.INSTANTIATE, 0, NULL, 0, 0), "instantiate module=0 initial=null segment=0 active=0"),
        ((Kind.INSTANTIATE, 0, 5, 3, 1), "instantiate module=0 initial=5 segment=3 active=1"),
        ((Kind.INSTANTIATE, 0, 7, 0, 0), "instantiate module=0 initial=import:1 segment=0 active=0"),
        ((Kind.TABLE_COPY, 0, 1, 2, 3, 4, 5), "table_copy to=0 from=1 start=2 source=3 count=4 live=5"),
    ],
)
def test_an_operation_has_one_text(row: tuple[int, ...], text: str) -> None:
    assert format_row(row, CALLS) == text
    assert parse(f"{HEAD}{text}\n").rows == (row,)


def test_the_header_holds_all_bounds() -> None:
    assert header(CALLS) == "# drc trace v1 scope=calls " + " ".join(f"{name}={getattr(CALLS, name)}" for name in BOUNDS)
    assert parse(HEAD).limits == CALLS


def test_what_the_header_does_not_say_is_as_in_its_scope() -> None:
    limits = parse("# drc trace v1 scope=calls chunk=7\n").limits
    assert limits.numbers() == {**CALLS.numbers(), "chunk": 7}
    assert parse("# drc trace v1\n").limits == SCOPES["everything"]


@pytest.mark.parametrize(
    "text",
    [
        "| | gc\n",
        "\t gc \n",
        "|gc\n",
        "# a comment\n| # another\n\n   \ngc\n",
        "gc\r\n",
    ],
)
def test_bars_comments_and_blank_lines_mean_nothing(text: str) -> None:
    assert parse(HEAD + text).rows == ((Kind.GC,),)


@pytest.mark.parametrize(
    "text",
    ["call_wasm args=[0,1] function=1 instance=0\n", "call_wasm  instance=0   function=1 args=[ 0  1 ] \n"],
)
def test_operands_come_in_any_order_and_spacing(text: str) -> None:
    assert parse(HEAD + text).rows == ((Kind.CALL_WASM, 0, 1, 0, 1),)


def test_a_list_may_be_left_out() -> None:
    assert parse(HEAD + "new layout=1\n").rows == ((Kind.NEW, 1),)


NOT_A_TRACE = "not a trace: it must begin with '# drc trace v1 ...'"
SCOPE_NAMES = ", ".join(SCOPES)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty: a trace begins with '# drc trace v1 ...'"),
        ("gc\n", NOT_A_TRACE),
        ("# drc trace\n", NOT_A_TRACE),
        ("# drc trace v1 Chunk=1\n", NOT_A_TRACE),
        ("# drc trace v1 chunk\n", NOT_A_TRACE),
        ("# drc trace v2 chunk=1\n", "trace version 2, but this program reads version 1"),
        ("# drc trace v0\n", "trace version 0, but this program reads version 1"),
        ("# drc trace v1 chunk=1 chunk=2\n", "a bound is given twice"),
        ("# drc trace v1 scope=nothing\n", f"unknown scope 'nothing' (there are: {SCOPE_NAMES})"),
        ("# drc trace v1 speed=1\n", f"'speed' is no bound (there are: {', '.join(BOUNDS)})"),
        ("# drc trace v1 chunk=0\n", "chunk=0 is not between 1 and 65536"),
        ("# drc trace v1 chunk=many\n", "chunk=many is not a small number"),
    ],
)
def test_a_bad_header_is_refused(text: str, reason: str) -> None:
    with pytest.raises(TraceError) as raised:
        parse(text)
    assert str(raised.value) == f"line 1: {reason}"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("collect", "unknown operation 'collect'"),
        ("GC", "unknown operation 'GC'"),
        ("x" * 99, f"unknown operation '{'x' * 40}'"),
        ("drop", "drop lacks value"),
        ("call_wasm instance=0 args=[]", "call_wasm lacks function"),
        ("drop value=0 value=1", "value is given twice"),
        ("drop value=0 speed=1", "drop has no operand 'speed'"),
        ("gc now", "cannot read 'now': operands are name=value"),
        ("drop value=", "cannot read 'value=': operands are name=value"),
        ("drop value=-1", "'-1' is not a small number or null"),
        ("drop value=1e3", "'1e3' is not a small number or null"),
        ("drop value=\u0663", "'\u0663' is not a small number or null"),
        ("drop value=1234567890", "'1234567890' is not a small number or null"),
        ("drop value=import:0", "'import:0' is not a small number or null"),
        ("instantiate module=0 initial=import: segment=0 active=0", "'' is not a small number or null"),
        ("new layout=0 owns=0", "owns is a list: [0 1 null]"),
        ("new layout=0 owns=[0 x]", "'x' is not a small number or null"),
        ("new layout=0 owns=[0", "owns is a list: [0 1 null]"),
        ("new layout=[0]", "'[0]' is not a small number or null"),
    ],
)
def test_a_bad_operation_is_refused_with_its_line(line: str, reason: str) -> None:
    with pytest.raises(TraceError) as raised:
        parse(f"{HEAD}gc\n# a comment\n| {line}\ngc\n")
    assert str(raised.value) == f"line 4: {reason}"


def test_a_text_that_breaks_off_is_refused() -> None:
    """A line that was cut may still be an operation, but another one."""
    with pytest.raises(TraceError) as raised:
        parse(f"{HEAD}gc\ndrop value=1")
    assert str(raised.value) == "line 3: truncated: the last line does not end"


def test_what_is_too_large_is_refused_before_it_is_read() -> None:
    data = HEAD.encode()
    assert parse_bytes(data + b"\n" * (SIZE_MAX_BYTES - len(data))).rows == ()
    with pytest.raises(TraceError) as raised:
        parse_bytes(b"\xff" * (SIZE_MAX_BYTES + 1))
    assert str(raised.value) == f"line 1: {SIZE_MAX_BYTES + 1} bytes; a trace has at most {SIZE_MAX_BYTES}"


def test_what_is_no_text_is_refused_with_its_line() -> None:
    with pytest.raises(TraceError) as raised:
        parse_bytes(HEAD.encode() + b"gc\ndrop value=\xff\n")
    assert str(raised.value) == "line 3: not text"


def read(text: bytes) -> Trace | str:
    """The trace, or the reason why it is none."""
    try:
        return parse_bytes(text)
    except TraceError as error:
        return str(error)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_trace_or_refused(data: bytes) -> None:
    found = read(HEAD.encode() + data)
    assert isinstance(found, Trace) or found.startswith("line ")


@given(st.text(max_size=60))
def test_any_line_is_an_operation_or_refused(line: str) -> None:
    found = read(f"{HEAD}{line}\n".encode(errors="replace"))
    assert parse(format_trace(found)) == found if isinstance(found, Trace) else found.startswith("line ")

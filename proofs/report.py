"""What a user sees of a proof run: a table of verdicts, each witness with what it showed, and whatever was not as expected."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final, TextIO

from rich.console import Console
from rich.table import Table

from proofs.obligations import Verdict

if TYPE_CHECKING:
    from proofs.command import Told
    from proofs.obligations import Obligation

WIDTH: Final = 140


def print_list(obligations: list[Obligation], stream: TextIO) -> None:
    """Print what there is to prove, one obligation a paragraph."""
    for obligation in obligations:
        head = f"{obligation.subject}: {obligation.name} ({obligation.expected.value})"
        stream.write(f"{head}\n    {obligation.statement}\n")


def print_report(told: list[Told], stream: TextIO) -> None:
    """Print what came of a run. Times are not part of it: the same work gives the same bytes."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    headings = ["subject", "obligation", "verdict", "assumptions"]
    if any(each.second is not None for each in told):
        headings.append("second solver")
    if any(each.certificate is not None for each in told):
        headings.append("certificate")
    for heading in headings:
        table.add_column(heading, justify="right" if heading == "assumptions" else "left", no_wrap=True)
    for each in told:
        table.add_row(*_row(each))
    plain = Console(file=stream, highlight=False, soft_wrap=True, width=WIDTH, color_system=None, force_terminal=False)
    plain.print(table)
    for each in told:
        for claim in each.result.claims:
            if claim.witness:
                values = ", ".join(f"{name} = {_shown(value)}" for name, value in claim.witness)
                stream.write(f"\n{each.result.name}: {each.result.statement}\n    {values}\n    {claim.shown}\n")
    lines = [line for each in told for line in _remarks(each)]
    stream.write("".join(f"{line}\n" for line in ["", *lines, _summary(told)]))


def _row(each: Told) -> list[str]:
    result = each.result
    row = [result.subject, result.name, result.verdict.value, str(len(result.assumptions))]
    if each.second is not None:
        row.append(
            "agrees" if all(answer is result.verdict for answer in each.second) else "/".join(answer.value for answer in each.second)
        )
    if each.certificate is not None:
        row.append(f"checked, {each.certificate.clauses} clauses" if each.certificate.checked else f"none: {each.certificate.reason}")
    return row


def _remarks(each: Told) -> list[str]:
    result = each.result
    lines = [f"{result.name}: no proof needs the assumption: {name}" for name in result.unused]
    if result.verdict is not result.expected:
        lines.append(f"{result.name}: {result.verdict.value}, where {result.expected.value} was expected: {result.statement}")
    lines += [f"{result.name}: {problem}" for problem in result.problems]
    if each.disagrees:
        lines.append(f"{result.name}: the solvers disagree")
    if each.certificate is not None and each.certificate.rejected:
        lines.append(f"{result.name}: the certificate is refused: {each.certificate.reason}")
    return lines


def _summary(told: list[Told]) -> str:
    counts = Counter(each.result.verdict for each in told)
    ends = "all as expected" if not any(each.failed or each.unknown for each in told) else "not all as expected"
    words = {Verdict.PROVED: "proved", Verdict.REFUTED: "refuted on purpose", Verdict.UNKNOWN: "unknown"}
    if any(each.result.verdict is Verdict.REFUTED and each.result.expected is Verdict.PROVED for each in told):
        words[Verdict.REFUTED] = "refuted"
    return f"{len(told)} obligations: {', '.join(f'{counts[verdict]} {word}' for verdict, word in words.items())}: {ends}"


def _shown(value: int | bool) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if value < 10_000 else f"{value:#x}"

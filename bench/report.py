"""What a benchmark found: a table whose ratios come first, for people and for machines."""

from __future__ import annotations

from dataclasses import dataclass

Cell = str | float | int


@dataclass(frozen=True, slots=True)
class Report:
    """One table.

    Args:
        name: of the benchmark.
        claim: what it measures, in one sentence.
        columns: their titles, units last.
        rows: one cell for each column.
        access_ns: cost of one access to raw memory during the measurement, in nanoseconds; 0 if nothing was measured.
        missing: why there are no rows; empty if there are.
    """

    name: str
    claim: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    access_ns: float = 0.0
    missing: str = ""

    def as_json(self) -> dict[str, object]:
        """Return what `json.dumps` can write."""
        return {
            "name": self.name,
            "claim": self.claim,
            "rows": [dict(zip(self.columns, row, strict=True)) for row in self.rows],
            "access_ns": self.access_ns,
            "missing": self.missing,
        }


def say(cell: Cell) -> str:
    """Return the text of a cell: whole numbers from a hundred on, else two decimals."""
    if isinstance(cell, float):
        return f"{cell:,.0f}" if cell >= 100 else f"{cell:.2f}"
    return f"{cell:,}" if isinstance(cell, int) else cell

"""Every operation that is possible now, in the order in which an odometer over `choose_op` would draw them, each once.

A search that keeps no implementation in step need not begin anew for each draw: operands are extended side by side.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from model.choose import kinds_possible
from model.domains import DOMAINS, LONGEST, values_of
from model.ops import BY_KIND

if TYPE_CHECKING:
    from model.limits import Limits
    from model.ops import Row
    from model.state import State


def possible_rows(state: State, limits: Limits) -> list[Row]:
    """Return the operations possible in a state, without duplicates.

    An odometer draws some rows twice: a list that finds nothing more to take ends early, and is then a shorter one.

    Complexity: O(operations * operands), and what the domains cost.
    """
    found: list[Row] = []
    for kind in kinds_possible(state, limits):
        spec = BY_KIND[kind]
        rows: list[Row] = [(int(kind),)]
        for _name, domain in spec.operands:
            function, form = DOMAINS[domain]
            rows = [(*row, value) for row in rows for value in values_of(function(state, limits, row), form)]
        if spec.items is None:
            found += rows
            continue
        longest = LONGEST[spec.items[1]](state, limits)
        function, form = DOMAINS[spec.items[1]]
        for row in rows:
            lists = [row]
            for length in range(longest + 1):
                if length:
                    lists = [(*begun, value) for begun in lists for value in values_of(function(state, limits, begun), form)]
                found += lists
    return found

"""`python -m fuzz.check_deep` searches the deep scopes, and compares the counts with those that are kept."""

from __future__ import annotations

import sys
import time

from fuzz.check_scopes import DEEP_COUNTS, DEEP_SCOPES
from fuzz.explore import Explorer
from fuzz.states import JointStates


def main() -> int:
    """Search; return 1 if a violation was found or a count differs, else 0. Takes some ten minutes."""
    bad = 0
    for name, limits in DEEP_SCOPES.items():
        began = time.monotonic()
        explorer = Explorer(JointStates(limits, symmetry=True))
        found = explorer.run()
        counts = (found.states, found.transitions, found.depth)
        sys.stdout.write(f"{name}: {found.states:,} states, {found.transitions:,} transitions, depth {found.depth}\n")
        sys.stderr.write(f"{name}: {time.monotonic() - began:.0f} s\n")
        if explorer.violation is not None:
            sys.stdout.write(f"{name}: {explorer.violation.divergence}\n")
            bad = 1
        elif counts != DEEP_COUNTS[name]:
            sys.stdout.write(f"{name}: these counts were kept: {DEEP_COUNTS[name]}\n")
            bad = 1
    return bad


if __name__ == "__main__":
    sys.exit(main())

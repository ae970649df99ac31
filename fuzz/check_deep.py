"""`python -m fuzz.check_deep` searches the deep scopes in compiled code, and compares the counts with those that are kept."""

from __future__ import annotations

import sys
import time

from fuzz.check_scopes import DEEP_COUNTS, DEEP_SCOPES, DEEP_WITHOUT_SYMMETRY
from fuzz.compiled.search import CompiledExplorer
from fuzz.explore import MEGABYTE, resident_bytes
from fuzz.workers import usable_processors

FRONTIER_WORDS_MAX = 1 << 29
"""Of the states that wait, so many words stay in memory: four gigabytes."""


def main() -> int:
    """Search the scopes that are named, or all; return 1 if a violation was found or a count differs, else 0."""
    bad = 0
    for name in sys.argv[1:] or DEEP_SCOPES:
        began = time.monotonic()
        symmetry = name not in DEEP_WITHOUT_SYMMETRY
        explorer = CompiledExplorer(DEEP_SCOPES[name], symmetry=symmetry, jobs=usable_processors(), memory_max=FRONTIER_WORDS_MAX)
        found = explorer.run()
        counts = (found.states, found.transitions, found.depth)
        sys.stdout.write(f"{name}: {found.states:,} states, {found.transitions:,} transitions, depth {found.depth}\n")
        sys.stdout.flush()
        sys.stderr.write(f"{name}: {time.monotonic() - began:.0f} s, {resident_bytes() // MEGABYTE:,} MB at its end\n")
        if explorer.violation is not None:
            sys.stdout.write(f"{name}: {explorer.violation.divergence}\n")
            bad = 1
        elif counts != DEEP_COUNTS[name]:
            sys.stdout.write(f"{name}: these counts were kept: {DEEP_COUNTS[name]}\n")
            bad = 1
    return bad


if __name__ == "__main__":
    sys.exit(main())

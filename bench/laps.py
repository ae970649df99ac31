"""`python -m bench.laps SCOPE` searches a scope with a library that takes laps, and prints them as JSON: `bench.compiled` asks for it."""

from __future__ import annotations

import ctypes
import json
import sys
import time

from fuzz.check_scopes import DEEP_SCOPES
from fuzz.compiled.library import load
from fuzz.compiled.search import CompiledExplorer
from fuzz.compiled.world import LAPS_MAX


def main() -> None:
    """Search, and print nanoseconds a step and the laps."""
    explorer = CompiledExplorer(DEEP_SCOPES[sys.argv[1]], symmetry=False)
    laps = (ctypes.c_int64 * LAPS_MAX).in_dll(load(), "laps")
    began = time.process_time()
    search = explorer.run()
    ns = (time.process_time() - began) * 1e9 / search.transitions
    sys.stdout.write(json.dumps({"ns": ns, "laps": list(laps)}))


if __name__ == "__main__":
    main()

"""`python -m fuzz.compiled.training` does a little of everything, for a library that counts which ways its code goes."""

from __future__ import annotations

from typing import Final

from fuzz.check_scopes import CHECK_SCOPES
from fuzz.compiled.model_search import CompiledModelExplorer
from fuzz.compiled.search import CompiledExplorer
from model.limits import with_numbers

SCOPES: Final = ("reentrancy", "globals", "storage", "faults", "counting", "sweeps")


def main() -> None:
    """Search small scopes, with symmetry and without: first both sides, then the model alone."""
    for symmetry in (False, True):
        for name in SCOPES:
            CompiledExplorer(CHECK_SCOPES[name], symmetry=symmetry).run()
            CompiledModelExplorer(CHECK_SCOPES[name], symmetry=symmetry, finale=True).run()
        CompiledModelExplorer(with_numbers(CHECK_SCOPES["peers"], {"objects": 2, "roots": 2}), symmetry=symmetry).run()


if __name__ == "__main__":
    main()

"""What an operation is expected to answer, besides a plain result: a name, NULL, a size, or 0."""

from __future__ import annotations

from typing import Final

OUT_OF_BOUNDS: Final = -2
ALLOCATION_FAILED: Final = -3
REFUSED: Final = -4
RAISED: Final = -5

"""The same protocol for three checkers: ours, TLC (drc.tla) and Spin (drc.pml), side by side."""

"""Defects put back on purpose, one at a time and never in a file: who finds them, how fast, and with how short a story."""

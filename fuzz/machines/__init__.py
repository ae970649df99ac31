"""Hypothesis state machines: readable failures that shrink, for the whole runtime and for each component alone."""

"""Deferred reference counting as plain functions over a memory of unsigned words.

Import the modules by name, for instance ``from impl import arena, externref``. This file imports nothing, so that an instrumenting
importer sees every module for the first time itself.
"""

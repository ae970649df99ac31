"""A checkpoint is a whole search in one file: written beside the old one and renamed, so that there is always one that is whole.

The file is one line of JSON, zlib-compressed sections, and a digest of all before it. A search is written only between two states,
and goes on in the same order; so one that was killed and resumed counts what one that was left alone counts. The line names what was
searched and by which code: another program would not number the same steps alike.
"""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from array import array
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import fuzz.driver
import impl.runtime
import model.ops
from fuzz.explore import DIGEST_BYTES, Search

if TYPE_CHECKING:
    from collections.abc import Iterable

    from model.limits import Limits

VERSION: Final = 1
_TRAILER_BYTES: Final = 32
_SECTIONS: Final = 5
_LENGTH_BYTES: Final = 8
_LEVEL: Final = 1


class CheckpointError(Exception):
    """A file is no checkpoint of this search. The message is one line without the path."""


def purpose(limits: Limits, *, symmetry: bool, exact: bool, model_only: bool = False, finale: bool = False) -> dict[str, Any]:
    """Return what a checkpoint is for: two searches with equal purposes number all states and steps alike."""
    return {
        "scope": limits.scope,
        "bounds": limits.numbers(),
        "kinds": sorted(kind.name for kind in limits.kinds),
        "symmetry": symmetry,
        "exact": exact,
        "model_only": model_only,
        "finale": finale,
        "code": code_digest(),
    }


def code_digest() -> str:
    """Return a digest of the source of everything that decides about states and steps."""
    digest = hashlib.sha256()
    for module in (model.ops, impl.runtime, fuzz.driver):
        for path in sorted(Path(module.__file__ or "").parent.glob("*.py")):
            digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def save(path: Path, search: Search, described: dict[str, Any]) -> None:
    """Write a search to a file, durably; the old file is there until the new one is whole.

    Args:
        path: the file.
        search: between two states.
        described: its `purpose`.

    Raises:
        OSError: it could not be written; the old file is as it was.
    """
    head = {
        "drc checkpoint": VERSION,
        **described,
        "done": search.done,
        "waiting": search.waiting,
        "arriving": search.arriving,
        "depth": search.depth,
        "transitions": search.transitions,
        "counts": search.counts,
        "shown": search.shown,
    }
    keys = _joined(search.seen) if search.exact else b"".join(search.seen)
    sections = (keys, search.parents.tobytes(), search.ordinals.tobytes(), _joined(search.frontier), _joined(search.following))
    # One name, so that a search that is killed again and again leaves one draft.
    draft = path.with_name(f".{path.name}.draft")
    try:
        with draft.open("wb") as file:
            digest = hashlib.sha256()
            for part in (json.dumps(head).encode() + b"\n", *map(_section, sections)):
                digest.update(part)
                file.write(part)
            file.write(digest.digest())
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def load(path: Path, described: dict[str, Any]) -> Search:
    """Read a search.

    Raises:
        CheckpointError: the file is damaged, or belongs to another search.
        OSError: it could not be read.
    """
    data = path.read_bytes()
    body = memoryview(data)[:-_TRAILER_BYTES]
    end = data.find(b"\n")
    if not data.startswith(b'{"drc checkpoint"') or end < 0:
        raise CheckpointError("not a checkpoint")
    if hashlib.sha256(body).digest() != data[-_TRAILER_BYTES:]:
        raise CheckpointError("damaged: it does not have the digest that it says")
    head = json.loads(data[:end])
    if head["drc checkpoint"] != VERSION:
        raise CheckpointError(f"checkpoint version {head['drc checkpoint']}, but this program reads version {VERSION}")
    for what, value in described.items():
        if head.get(what) != value:
            raise CheckpointError(
                "made by other code, which need not number steps alike" if what == "code" else f"of a search with another {what}"
            )
    sections = _sections(body[end + 1 :])
    search = Search(exact=head["exact"])
    keys = sections[0]
    if search.exact:
        search.seen = set(_split(keys))
    else:
        search.seen = {keys[first : first + DIGEST_BYTES] for first in range(0, len(keys), DIGEST_BYTES)}
    search.parents.frombytes(sections[1])
    search.ordinals.frombytes(sections[2])
    search.frontier, search.following = deque(_split(sections[3])), deque(_split(sections[4]))
    for name in ("done", "waiting", "arriving", "depth", "transitions", "counts", "shown"):
        setattr(search, name, head[name])
    return search


def _section(data: bytes) -> bytes:
    packed = zlib.compress(data, _LEVEL)
    return len(packed).to_bytes(_LENGTH_BYTES, "little") + packed


def _sections(data: memoryview) -> list[bytes]:
    found = []
    at = 0
    for _ in range(_SECTIONS):
        length = int.from_bytes(data[at : at + _LENGTH_BYTES], "little")
        at += _LENGTH_BYTES
        found.append(zlib.decompress(data[at : at + length]))
        at += length
    return found


def _joined(parts: Iterable[bytes]) -> bytes:
    """Return byte strings in one: how many, their lengths, and all of them."""
    parts = tuple(parts)
    return array("Q", (len(parts), *map(len, parts))).tobytes() + b"".join(parts)


def _split(data: bytes) -> list[bytes]:
    count = array("Q", data[:_LENGTH_BYTES])[0]
    at = (1 + count) * _LENGTH_BYTES
    found = []
    for length in array("Q", data[_LENGTH_BYTES:at]):
        found.append(data[at : at + length])
        at += length
    return found

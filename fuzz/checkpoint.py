"""A checkpoint is a whole search in one file: written beside the old one and renamed, so that there is always one that is whole.

The file is one line of JSON, zlib-compressed sections, and a digest of all before it. A search is written only between two states,
and goes on in the same order; so one that was killed and resumed counts what one that was left alone counts. The line names what was
searched and by which code: another program would not number the same steps alike.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import zlib
from array import array
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import fuzz.compiled
import fuzz.driver
import impl.runtime
import model.ops
from fuzz.explore import DIGEST_BYTES, Search

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import TypeAlias

    Bytes: TypeAlias = bytes | memoryview[int]

    from model.limits import Limits

VERSION: Final = 2
_TRAILER_BYTES: Final = 32
_LENGTH_BYTES: Final = 8
_LEVEL: Final = 1
_HEAD_BYTES_MAX: Final = 1 << 20
_PIECE_BYTES: Final = 1 << 22


class CheckpointError(Exception):
    """A file is no checkpoint of this search. The message is one line without the path."""


def purpose(
    limits: Limits, *, symmetry: bool, exact: bool, model_only: bool = False, finale: bool = False, fast: bool = False
) -> dict[str, Any]:
    """Return what a checkpoint is for: two searches with equal purposes number all states and steps alike, and keep them alike."""
    return {
        "scope": limits.scope,
        "bounds": limits.numbers(),
        "kinds": sorted(kind.name for kind in limits.kinds),
        "symmetry": symmetry,
        "exact": exact,
        "model_only": model_only,
        "finale": finale,
        "reading": "compiled" if fast else "plain",
        "code": code_digest(fast=fast),
    }


def code_digest(*, fast: bool) -> str:
    """Return a digest of the source of everything that decides about states and steps."""
    digest = hashlib.sha256()
    for module in (model.ops, impl.runtime, fuzz.driver, *([fuzz.compiled] if fast else [])):
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
    write_file(path, head, ((section, _LEVEL) for section in sections))


def write_file(path: Path, head: dict[str, Any], sections: Iterable[tuple[Bytes, int]]) -> None:
    """Write a head and sections to a file, durably; the old file is there until the new one is whole.

    Args:
        path: the file.
        head: numbers and words.
        sections: the bytes of each, and how hard zlib is to try.

    Raises:
        OSError: it could not be written; the old file is as it was.
    """
    # One name, so that a search that is killed again and again leaves one draft.
    draft = path.with_name(f".{path.name}.draft")
    try:
        with draft.open("wb") as file:
            digest = hashlib.sha256()
            line = json.dumps(head).encode() + b"\n"
            for part in itertools.chain((line,), (_section(data, level) for data, level in sections)):
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
    head, read = read_file(path, described)
    sections = list(read)
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


def read_file(path: Path, described: dict[str, Any]) -> tuple[dict[str, Any], Iterator[bytes]]:
    """Read the head of a file, and its sections one by one. The file is read twice, so that nothing of a damaged one is used.

    Raises:
        CheckpointError: the file is damaged, or belongs to another search.
        OSError: it could not be read.
    """
    size = path.stat().st_size
    digest = hashlib.sha256()
    with path.open("rb") as file:
        line = file.readline(_HEAD_BYTES_MAX)
        if not line.startswith(b'{"drc checkpoint"') or not line.endswith(b"\n"):
            raise CheckpointError("not a checkpoint")
        digest.update(line)
        left = size - len(line) - _TRAILER_BYTES
        while left > 0 and (piece := file.read(min(left, _PIECE_BYTES))):
            digest.update(piece)
            left -= len(piece)
        if left != 0 or digest.digest() != file.read():
            raise CheckpointError("damaged: it does not have the digest that it says")
    head: dict[str, Any] = json.loads(line)
    if head["drc checkpoint"] != VERSION:
        raise CheckpointError(f"checkpoint version {head['drc checkpoint']}, but this program reads version {VERSION}")
    for what, value in described.items():
        if head.get(what) != value:
            raise CheckpointError(
                "made by other code, which need not number steps alike" if what == "code" else f"of a search with another {what}"
            )
    return head, _sections(path, len(line), size - _TRAILER_BYTES)


def _section(data: Bytes, level: int) -> bytes:
    packed = zlib.compress(data, level)
    return len(packed).to_bytes(_LENGTH_BYTES, "little") + packed


def _sections(path: Path, at: int, end: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        while at < end:
            file.seek(at)
            length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
            yield zlib.decompress(file.read(length))
            at += _LENGTH_BYTES + length


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

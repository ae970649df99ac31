"""Released packages are fetched by pip into a cache, verified, and unpacked apart, since no two of them fit into one environment."""

from __future__ import annotations

import base64
import csv
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

PACKAGE: Final = "wasmtime"
FIRST: Final = (0, 19, 0)
"""Older releases lack what the programs need."""
FETCH_SECONDS_MAX: Final = 600
ORIGIN: Final = "origin.json"
"""File beside an unpacked package: where it came from, and the hash that the index has recorded."""
_RELEASE: Final = re.compile(r"\d{1,4}(\.\d{1,4}){0,3}")
_NOT_THERE: Final = ("No matching distribution", "Could not find a version")


class WheelError(Exception):
    """A release cannot be had. The message is one line.

    Args:
        message: what is wrong, and with which release.
        exit_code: 2 if the request is at fault, 4 if the machine, the network or the download is.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def key(release: str) -> tuple[int, ...]:
    """Return what releases are ordered by."""
    return tuple(int(part) for part in release.split("."))


def cache_folder() -> Path:
    """Return the folder of the user's cache that releases are kept in, as the XDG specification has it."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if base.startswith("/") else Path.home() / ".cache") / "drc-check" / "releases"


def cached(cache: Path) -> list[str]:
    """Return the releases that the cache has, oldest first."""
    found = [path.parent.name for path in cache.glob(f"*/{ORIGIN}") if _RELEASE.fullmatch(path.parent.name)]
    return sorted(found, key=key)


def listed() -> list[str]:
    """Return the releases from 0.19 on that the package index has for this platform, oldest first.

    Raises:
        WheelError: the index cannot be asked.
    """
    output = _pip("index", "versions", PACKAGE)
    found = re.search(r"^Available versions: (.*)$", output, re.MULTILINE)
    if found is None:
        raise WheelError(f"pip does not say which releases of {PACKAGE} there are", 4)
    releases = [release.strip() for release in found[1].split(",")]
    return sorted((release for release in releases if _RELEASE.fullmatch(release) and key(release) >= FIRST), key=key)


def select(wanted: str, known: list[str]) -> list[str]:
    """Return the releases that a list names, oldest first.

    Args:
        wanted: `all`, `newest`, or releases and ranges of them, both ends included: `0.24.0,0.29-1.0.1,50`.
        known: all releases, oldest first.

    Raises:
        WheelError: it names none, or one that is not known.
    """
    if wanted == "all":
        return known
    if wanted == "newest":
        return known[-1:]
    chosen: set[str] = set()
    for part in wanted.split(","):
        name = part.strip()
        first, dash, last = name.partition("-")
        if not _RELEASE.fullmatch(first) or (dash and not _RELEASE.fullmatch(last)):
            raise WheelError(f"not a release or a range of releases: {name[:40]!r}", 2)
        if key(first) < FIRST[: len(key(first))]:
            raise WheelError(f"{PACKAGE} {first} is too old: the first with what is needed here is 0.19.0", 2)
        # The end of a range may be a prefix: the 0.29 in `0.24-0.29` is all of 0.29. One release alone is a range of itself.
        last = last or first
        inside = [release for release in known if key(first) <= key(release) and key(release)[: len(key(last))] <= key(last)]
        if not inside:
            raise WheelError(f"the package index has no {PACKAGE} {name}", 2)
        chosen.update(inside)
    return sorted(chosen, key=key)


def obtain(release: str, cache: Path) -> Path:
    """Return a folder that has the `wasmtime` package of a release, fetched if the cache does not have it.

    What is in the cache is verified against its own list of hashes each time, and fetched anew if it is not what it was.

    Raises:
        WheelError: there is no such release, none for this platform, no network, or the download is not what the index recorded.
    """
    if not _RELEASE.fullmatch(release):
        raise WheelError(f"not a release: {release[:40]!r}", 2)
    folder = cache / release
    if (folder / ORIGIN).exists():
        if not damage(folder):
            return folder
        shutil.rmtree(folder, ignore_errors=True)
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{release}-", dir=cache) as scratch:
            unpacked = Path(scratch) / release
            _fetch(release, Path(scratch) / "report.json", unpacked)
            problem = damage(unpacked)
            if problem:
                raise WheelError(f"{PACKAGE} {release}: bad download: {problem}", 4)
            try:
                unpacked.rename(folder)
            except OSError:
                # Another process was faster. Its copy must be as good.
                if damage(folder):
                    raise
    except OSError as error:
        raise WheelError(f"{PACKAGE} {release}: cannot be kept in {cache}: {error.strerror or error}", 4) from None
    return folder


def damage(folder: Path) -> str:
    """Return what is wrong with an unpacked wheel, by the hashes in its RECORD; empty if nothing is. Takes some 50 ms."""
    records = list(folder.glob(f"{PACKAGE}-*.dist-info/RECORD"))
    if len(records) != 1:
        return "no RECORD"
    rows = list(csv.reader(records[0].read_text(encoding="utf-8").splitlines()))
    names = {row[0] for row in rows if row}
    if not any(name.startswith(f"{PACKAGE}/") and name.endswith((".so", ".dylib", ".dll")) for name in names):
        return "no library inside"
    for name, recorded, _size in rows:
        path = folder / name
        if recorded:
            algorithm, _, digest = recorded.partition("=")
            if algorithm not in {"sha256", "sha384", "sha512"}:
                return f"{name} has no usable hash"
            actual = hashlib.new(algorithm, path.read_bytes()).digest() if path.is_file() else b""
            if base64.urlsafe_b64encode(actual).rstrip(b"=").decode() != digest:
                return f"{name} is not what RECORD says"
    return ""


def _fetch(release: str, report: Path, unpacked: Path) -> None:
    """Let pip download a wheel, hold it against the hash that the index has for it, and unpack it; keep that hash."""
    options = ("--quiet", "--no-deps", "--only-binary", ":all:", "--no-compile", "--target", str(unpacked), "--report", str(report))
    _pip("install", *options, f"{PACKAGE}=={release}", release=release)
    try:
        source = json.loads(report.read_text(encoding="utf-8"))["install"][0]["download_info"]
        origin = {"release": release, "url": source["url"], "sha256": source["archive_info"]["hashes"]["sha256"]}
    except (OSError, ValueError, KeyError, IndexError):
        raise WheelError(f"{PACKAGE} {release}: pip does not say where it comes from and what its hash is", 4) from None
    (unpacked / ORIGIN).write_text(json.dumps(origin) + "\n", encoding="utf-8")


def _pip(*arguments: str, release: str = "") -> str:
    """Run pip and return what it prints. Its failures become one line."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "--retries", "2", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=FETCH_SECONDS_MAX, check=False)  # noqa: S603
    except subprocess.TimeoutExpired:
        raise WheelError(f"pip took more than {FETCH_SECONDS_MAX} s", 4) from None
    if done.returncode == 0:
        return done.stdout
    what = f"{PACKAGE} {release}".strip()
    if "No module named pip" in done.stderr:
        raise WheelError(f"{what}: this Python has no pip to fetch it with", 4)
    if any(text in done.stderr for text in _NOT_THERE):
        # An index that answers has some release, and pip lists what it has.
        if not release or "from versions: none" in done.stderr:
            raise WheelError(f"{what}: no package index answers", 4)
        raise WheelError(f"the package index has no {what} for this platform", 2)
    lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines() or ["no message"]
    raise WheelError(f"{what}: pip failed: {lines[0].removeprefix('ERROR: ')[:300]}", 4)

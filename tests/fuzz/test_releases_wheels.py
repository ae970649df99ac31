"""Releases are fetched by pip, verified, kept apart, and fetched anew if they are not what they were."""

import base64
import hashlib
import json
import os
import zipfile
from pathlib import Path

import pytest

from fuzz.releases import wheels

CLOSED_PORT = "http://127.0.0.1:9/simple"


def make_wheel(folder: Path, release: str, damaged: str = "") -> None:
    """A wheel that any platform takes, with a library that is none."""
    inside = f"wasmtime-{release}.dist-info"
    files = {
        "wasmtime/__init__.py": b"",
        "wasmtime/linux-x86_64/_libwasmtime.so": b"no library",
        f"{inside}/METADATA": f"Metadata-Version: 2.1\nName: wasmtime\nVersion: {release}\n".encode(),
        f"{inside}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    rows = []
    for name, content in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        rows.append(f"{name},sha256={digest},{len(content)}")
    with zipfile.ZipFile(folder / f"wasmtime-{release}-py3-none-any.whl", "w") as archive:
        for name, content in files.items():
            archive.writestr(name, b"damaged" if name == damaged else content)
        archive.writestr(f"{inside}/RECORD", "\n".join([*rows, f"{inside}/RECORD,,"]) + "\n")


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package index that is a folder, and pip with no other."""
    folder = tmp_path / "index"
    folder.mkdir()
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def test_releases_are_listed_fetched_kept_and_fetched_anew_if_damaged(index: Path, tmp_path: Path) -> None:
    for release in ("0.18.2", "0.24.0", "1.0.1"):
        make_wheel(index, release)
    assert wheels.listed() == ["0.24.0", "1.0.1"]
    cache = tmp_path / "cache"
    folder = wheels.obtain("0.24.0", cache)
    assert (folder / "wasmtime" / "__init__.py").exists()
    recorded = hashlib.sha256((index / "wasmtime-0.24.0-py3-none-any.whl").read_bytes()).hexdigest()
    assert json.loads((folder / wheels.ORIGIN).read_text(encoding="utf-8"))["sha256"] == recorded
    assert (wheels.cached(cache), sorted(path.name for path in cache.iterdir())) == (["0.24.0"], ["0.24.0"])
    # From now on the index is needed only if something happens to the copy.
    library = folder / "wasmtime" / "linux-x86_64" / "_libwasmtime.so"
    library.write_bytes(b"something else")
    assert wheels.damage(folder) == "wasmtime/linux-x86_64/_libwasmtime.so is not what RECORD says"
    assert wheels.obtain("0.24.0", cache) == folder
    assert library.read_bytes() == b"no library"
    (index / "wasmtime-0.24.0-py3-none-any.whl").unlink()
    assert wheels.obtain("0.24.0", cache) == folder


def test_a_bad_download_is_one_line_and_leaves_nothing(index: Path, tmp_path: Path) -> None:
    make_wheel(index, "0.24.0", damaged="wasmtime/__init__.py")
    with pytest.raises(
        wheels.WheelError, match=r"^wasmtime 0\.24\.0: bad download: wasmtime/__init__\.py is not what RECORD says$"
    ) as caught:
        wheels.obtain("0.24.0", tmp_path / "cache")
    assert caught.value.exit_code == 4
    assert list((tmp_path / "cache").iterdir()) == []


def test_no_such_release_is_a_bad_request_and_no_index_a_failure(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_wheel(index, "0.24.0")
    with pytest.raises(wheels.WheelError, match=r"^the package index has no wasmtime 0\.25\.0 for this platform$") as caught:
        wheels.obtain("0.25.0", tmp_path / "cache")
    assert caught.value.exit_code == 2
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_INDEX_URL", CLOSED_PORT)
    for ask in (wheels.listed, lambda: wheels.obtain("0.24.0", tmp_path / "cache")):
        with pytest.raises(wheels.WheelError, match=r"no package index answers$") as caught:
            ask()
        assert caught.value.exit_code == 4


def test_a_cache_that_cannot_be_written_is_one_line(index: Path, tmp_path: Path) -> None:
    make_wheel(index, "0.24.0")
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(wheels.WheelError, match=r"^wasmtime 0\.24\.0: cannot be kept in .*: Not a directory$") as caught:
        wheels.obtain("0.24.0", tmp_path / "file" / "cache")
    assert caught.value.exit_code == 4


KNOWN = ["0.24.0", "0.28.0", "0.28.1", "0.29.0", "0.30.0", "1.0.1", "13.0.2", "50.0.1"]


@pytest.mark.parametrize(
    ("wanted", "chosen"),
    [
        ("all", KNOWN),
        ("newest", ["50.0.1"]),
        ("50.0.1,0.24.0", ["0.24.0", "50.0.1"]),
        ("0.28", ["0.28.0", "0.28.1"]),
        ("0.28.1-0.30, 13", ["0.28.1", "0.29.0", "0.30.0", "13.0.2"]),
        ("1-20", ["1.0.1", "13.0.2"]),
    ],
)
def test_lists_of_releases_are_read(wanted: str, chosen: list[str]) -> None:
    assert wheels.select(wanted, KNOWN) == chosen


@pytest.mark.parametrize("wanted", ["", "banana", "0.24.0,,1", "0.24.9", "1-0.5", "0.18.0", "0.24.0-", "-1"])
def test_what_is_no_list_of_releases_is_refused(wanted: str) -> None:
    with pytest.raises(wheels.WheelError) as caught:
        wheels.select(wanted, KNOWN)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)

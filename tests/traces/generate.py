"""The upstream scenarios of thousands of operations are written by this script: `python tests/traces/generate.py`.

It knows nothing of the model or the implementation but the text of a trace: which names are free, and which collection
frees them, is worked out here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parent / "upstream"
CHUNK: Final = 512

_HEADER: Final = (
    "# drc trace v1 scope=everything chunk={chunk} objects={objects} roots={roots} slots={slots} functions=1 arguments={slots}"
    " contexts=2 destructors={destructors} destructor_ops={destructors} instances=1 globals=0 table={table} segment=0 fields=0 layouts=1"
    " leaks=0 orders=1 modules=2 quarantine=0"
)


def calls(count: int) -> list[str]:
    """Return the lines of a trace in which the host makes a value and passes it to Wasm, `count` times over.

    The host keeps nothing, so values die when a call finds the chunk full: all but the one that is about to move.
    """
    lines = [
        _HEADER.format(chunk=CHUNK, objects=CHUNK + 1, roots=1, slots=1, destructors=0, table=0),
        f"# {count} calls, each with a reference that nobody else holds; nobody ever asks for a collection.",
        "# source: upstream's own test of release 0.24, calls with fresh references until collections happen by themselves",
        "# must: collections happen by themselves, and one more at the end destroys the rest.",
        "instantiate module=0 initial=null segment=0 active=0",
    ]
    chunk: list[int] = []
    destroyed = 0
    for made in range(count):
        name = min(set(range(CHUNK + 1)).difference(chunk))
        if len(chunk) == CHUNK:
            destroyed += CHUNK
            chunk = []
        chunk.append(name)
        lines += ["new layout=0 owns=[]", f"call_wasm instance=0 function=0 args=[{name}]", "return results=[]"]
        if len(chunk) == CHUNK == made + 1:
            lines.append("# expect: seen=chunk_full")
    return [
        *lines,
        f"# expect: destroyed={destroyed}",
        "# expect: seen=collection_in_transfer",
        "gc",
        f"# expect: destroyed={count}",
    ]


def destructors(count: int) -> list[str]:
    """Return the lines of a trace in which one collection destroys `count` values whose destructors collect."""
    transfer = 8
    lines = [
        _HEADER.format(chunk=count, objects=count, roots=transfer, slots=transfer, destructors=1, table=0),
        f"# One collection destroys {count} values, and the destructor of each asks for a collection.",
        "# source: upstream's own test of release 0.24, values whose destructors collect, freed in one collection",
        "# must: the nested collections do nothing, and each value is destroyed once.",
        "instantiate module=0 initial=null segment=0 active=0",
    ]
    for first in range(0, count, transfer):
        names = " ".join(map(str, range(first, first + transfer)))
        lines += ["new layout=0 owns=[]"] * transfer
        lines += [f"call_wasm instance=0 function=0 args=[{names}]", "return results=[]"]
    lines += ["# expect: destroyed=0", "# expect: seen=chunk_full", "gc"]
    lines += ["| gc", "| end"] * count
    return [*lines, f"# expect: destroyed={count}", "# expect: seen=collection_nested"]


def reads(count: int) -> list[str]:
    """Return the lines of a trace in which one activation reads one table element `count` times and drops what it read."""
    read = "table_get table=0 element=0 target=0 live=0"
    return [
        _HEADER.format(chunk=CHUNK, objects=1, roots=1, slots=1, destructors=0, table=1),
        f"# One activation reads the same table element {count} times; each read puts one more entry into the activations table.",
        "# source: upstream's own test of release 0.24, reads of one table element",
        "# must: the reads collect by themselves and release their entries; the table's own reference stays.",
        "instantiate module=0 initial=null segment=0 active=0",
        "new layout=0 owns=[]",
        "host_table_set table=0 element=0 value=0",
        "call_wasm instance=0 function=0 args=[]",
        *[read] * CHUNK,
        f"# expect: count 0={CHUNK + 1}",
        "# expect: seen=chunk_full",
        *[read] * (count - CHUNK),
        "return results=[]",
        "# expect: seen=set_populated",
        "# expect: destroyed=0",
        "gc",
        "# expect: count 0=1",
        "host_table_set table=0 element=0 value=null",
        "# expect: destroyed=1",
    ]


def files() -> dict[str, str]:
    """Return the text of each file by its name."""
    made = {
        "4096-calls-with-fresh-references.drc": calls(4096),
        "1024-destructors-that-collect.drc": destructors(1024),
        "8192-reads-of-one-element.drc": reads(8192),
    }
    return {name: "\n".join(lines) + "\n" for name, lines in made.items()}


if __name__ == "__main__":
    for file_name, text in files().items():
        (FOLDER / file_name).write_text(text, encoding="utf-8")

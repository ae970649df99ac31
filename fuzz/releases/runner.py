"""A process that runs programs on one released engine and says each thing that it sees before it can be lost.

It needs the standard library and the `wasmtime` package under test, and is started by `fuzz.releases.engine` as
`python -m fuzz.releases.runner`. Standard input has one program a line, as JSON:

    {"id": 1, "wat": "(module ...)", "values": 4, "script": [...], "imports": [[...], ...], "destructors": {"0": [...]}}

`script`, the items of `imports` and of `destructors` are lists of actions. A *value* is a number below `values`; the engine holds it in
one box of its own for as long as it lives, and the host keeps at most one handle to it.

    ["new", v]                              makes value v, and the host's handle to it
    ["drop", v]                             gives up the handle to v
    ["instantiate", i, {name: source}]      makes instance i; a source of an import ("env", name) is ["global", j, export],
                                            ["table", j, export], or ["value", v or null] for a new immutable global
    ["call", i, export, [arg...], [v...]]   calls; an argument is v, null, ["i32", n] or ["i64", n]; the optional last list names
                                            handles that are given up as the arguments are passed on
    ["global_get", i, export]               ["global_set", i, export, arg]
    ["table_get", i, export, n]             ["table_set", i, export, n, arg]
    ["table_size", i, export]               ["table_grow", i, export, delta, arg]
    ["gc"]                                  ["drop_instance", i]
    ["drop_store"]                          gives up all handles, in order, then all instances, then the store
    ["return", [arg...], [v...]]            ends an import: its results, and the handles that move out with them
    ["raise"]                               ends an import: a trap; ends a destructor

The imports ("host", "hP_R") take P references and give R. Call number k of any of them, counted over the whole program, does `imports[k]`;
beyond the list, or without a `return`, results are null. What the engine hands to the host (parameters of imports, results of calls, what a global
or an element holds) becomes a handle if there is none yet. After the script comes an implicit `drop_store`.

Standard output has one JSON array a line:

    ["begin", id]                   a program starts
    ["at", where]                   the action at `where` starts
    ["got", where, [seen...]]       what the engine handed over: v, null, ["i32", n], ["i64", n], or "?word" for what is no value of the program
    ["size", where, n]              of a table; before growth, or -1 if it could not grow
    ["destroyed", v, where]         the engine destroyed v, while the host was at `where`
    ["trap", where, message]        the call or instantiation trapped
    ["error", where, message]       the engine, or its API, refused
    ["skipped", where]              this release's API does not allow the action here
    ["end"]                         everything was let go of

`where` is ["script", n], ["import", k, n] or ["destructor", v, n]; n is -1 for what precedes the first action, and the length of the script
for what follows the last one.
"""

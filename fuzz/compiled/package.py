"""The compiled reading as one C text: translated from the sources of driver, model and impl, and what Python calls in it.

The text has the two arrays themselves, so that their addresses are constants of the code, and is therefore one machine at a time;
`fuzz.compiled.machine` moves states in and out. A process that is forked has arrays of its own.
"""

from __future__ import annotations

import ast
import json
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from fuzz import small_steps
from fuzz.compiled import canonical, digest, joint, kernel, runs, small
from fuzz.compiled.emission import Emission
from fuzz.compiled.expressions import c_type, prototype
from fuzz.compiled.inference import VIEW, WORD, Inference
from fuzz.compiled.seams import INTRINSICS, draw_functions, seams
from fuzz.compiled.translate import Translator
from fuzz.compiled.world import DIRTY_AT, DIRTY_SHIFT, HANGS, LANES_AT, LAPS_MAX, LINE, MEM_MAX, REGISTERS, WILD, WORLD_MAX, name_of
from fuzz.driver import Driver
from impl import audit
from impl.runtime import Runtime
from model import words as model_words

if TYPE_CHECKING:
    from collections.abc import Callable

_WORD: Final = (1 << 64) - 1
HANG_SECONDS: Final = 10
"""A step that takes longer has no end: the slowest take milliseconds."""
_HEAD: Final = f"""/* Generated from the sources of impl, model and fuzz; see fuzz.compiled.translate. Not to be edited. */
#ifdef __AVX512F__
#include <immintrin.h>
#endif
#include <setjmp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>

typedef long long word;
typedef struct {{ word *at; word n; }} view;
typedef struct {{ word at[2]; }} words2;
typedef struct {{ word at[3]; }} words3;

word mem[{MEM_MAX}] __attribute__((aligned(64)));
word w[{WORLD_MAX}] __attribute__((aligned(64)));
word mem_words, w_words;
static word raised;
static jmp_buf landing;
static word landings;

static void __attribute__((noreturn, cold)) end_run(void)
{{
    if (landings == 0) abort();
    longjmp(landing, 1);
}}
static void __attribute__((noreturn, cold)) wild(void)
{{
    if (w[{REGISTERS["verdict"]}] == 0) w[{REGISTERS["verdict"]}] = {WILD};
    end_run();
}}

/* Whoever calls an entry cannot be interrupted in it. So a step without an end, and a stack or an address without a bottom, which only
   a defect can cause, are noticed by signals and end the run like any other verdict. Nothing here holds a lock that a jump could leave.
   Where there is nobody to land at, the defect is the harness's own, and the process dies of the signal. */
static struct sigaction outer_alarm, outer_fault;
static struct itimerval outer_timer;
static word steps_known, steps_taken;
static char fault_stack[1 << 16];

static void on_signal(int number)
{{
    if (number == SIGALRM && steps_taken != steps_known) {{
        steps_known = steps_taken;
        return;
    }}
    if (landings == 0) {{
        signal(number, SIG_DFL);
        raise(number);
        return;
    }}
    w[{REGISTERS["verdict"]}] = number == SIGALRM ? {HANGS} : {WILD};
    longjmp(landing, 1);
}}
static void guard(void)
{{
    stack_t stack = {{.ss_sp = fault_stack, .ss_size = sizeof fault_stack}};
    struct sigaction action = {{.sa_handler = on_signal, .sa_flags = SA_NODEFER | SA_ONSTACK}};
    struct itimerval timer = {{{{{HANG_SECONDS}, 0}}, {{{HANG_SECONDS}, 0}}}};
    sigaltstack(&stack, 0);
    steps_known = steps_taken - 1;
    sigaction(SIGSEGV, &action, &outer_fault);
    action.sa_flags = SA_NODEFER;
    sigaction(SIGALRM, &action, &outer_alarm);
    setitimer(ITIMER_REAL, &timer, &outer_timer);
}}
static void unguard(void)
{{
    setitimer(ITIMER_REAL, &outer_timer, 0);
    sigaction(SIGALRM, &outer_alarm, 0);
    sigaction(SIGSEGV, &outer_fault, 0);
}}

#ifdef DRC_LAPS
word laps[{LAPS_MAX}];
static unsigned long long lap_began;
#ifdef __x86_64__
static inline unsigned long long ticks(void) {{ return __builtin_ia32_rdtsc(); }}
#else
#include <time.h>
static inline unsigned long long ticks(void)
{{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000ULL + now.tv_nsec;
}}
#endif
static inline void lap(word part)
{{
    unsigned long long now = ticks();
    if (lap_began != 0) laps[part] += now - lap_began;
    lap_began = now;
}}
#else
#define lap(part) ((void)0)
#endif
static inline word within(word index)
{{
    if (__builtin_expect((unsigned long long)index >= (unsigned long long)mem_words, 0)) wild();
    return index;
}}
static inline void put(word index, word value)
{{
    within(index);
    w[{DIRTY_AT} + (index >> {DIRTY_SHIFT + 6})] |= 1LL << (index >> {DIRTY_SHIFT} & 63);
    mem[index] = value;
}}
static inline word floor_div(word a, word b) {{ word q = a / b; return q - (a % b != 0 && (a < 0) != (b < 0)); }}
static inline word floor_mod(word a, word b) {{ word r = a % b; return r != 0 && (r < 0) != (b < 0) ? r + b : r; }}
static inline word lowest_bit(word mask) {{ return mask ? __builtin_ctzll(mask) : -1; }}
static inline void copy_words(view target, word to, view source, word start, word count)
{{
    memmove(target.at + to, source.at + start, (size_t)count * sizeof(word));
}}
static inline void clear_words(view target, word start, word count)
{{
    memset(target.at + start, 0, (size_t)count * sizeof(word));
}}
static inline void copy_one_line(view target, word to, view source, word start)
{{
    memcpy(target.at + to, source.at + start, {LINE} * sizeof(word));
}}
static inline void prefetch_word(view row, word index) {{ __builtin_prefetch(row.at + index); }}
static inline word differing_words(view run, word start, view other, word at)
{{
    const word *one = run.at + start, *two = other.at + at;
#ifdef __AVX512F__
    return _mm512_cmpneq_epi64_mask(_mm512_loadu_si512(one), _mm512_loadu_si512(two));
#else
    word found = 0;
    for (int index = 0; index < {LINE}; index++) found |= (word)(one[index] != two[index]) << index;
    return found;
#endif
}}
/* Eight words at once, by whatever the machine has for that. */
typedef unsigned long long line __attribute__((vector_size({LINE} * sizeof(word)), aligned(sizeof(word)), may_alias));
static inline line first_mix(line words, line places)
{{
    words = words * {joint.M1 & _WORD}ULL + places;
    words = (words ^ words >> 32) * {joint.M2 & _WORD}ULL;
    return words ^ words >> 29;
}}
static inline line second_mix(line words)
{{
    words = (words ^ {joint.M3 & _WORD}ULL) * {joint.M1 & _WORD}ULL;
    return words ^ words >> 32;
}}
static inline void exchange_words(word changed, view run, word start, view other, word at, word place)
{{
    const line number = {{{", ".join(str(index) for index in range(LINE))}}};
    const line bit = {{{", ".join(str(1 << index) for index in range(LINE))}}};
    line here = (line)((bit & (unsigned long long)changed) != 0);
    line places = (number + (unsigned long long)place) * {joint.M2 & _WORD}ULL + {joint.M3 & _WORD}ULL;
    line come = first_mix(*(const line *)(run.at + start), places), gone = first_mix(*(const line *)(other.at + at), places);
    line *low = (line *)(w + {LANES_AT}), *high = (line *)(w + {LANES_AT + LINE});
    *low += (come - gone) & here;
    *high += (second_mix(come) - second_mix(gone)) & here;
}}
static inline word word_min(word a, word b) {{ return b < a ? b : a; }}
static inline word word_max(word a, word b) {{ return b > a ? b : a; }}
static inline word word_abs(word a) {{ return a < 0 ? -a : a; }}
"""
ENTRIES: Final[tuple[Callable[..., Any], ...]] = (
    kernel.begin,
    kernel.expand,
    kernel.merge,
    kernel.rehash,
    kernel.skip,
    runs.run,
    small.begin,
    small.expand,
    joint.open_state,
    joint.encode,
    joint.identify,
    # For tests, which compare single functions.
    canonical.describe,
    digest.digest,
    audit.audit,
    *(getattr(model_words, name) for name in ("nth", "lowest", "popcount", "deposit", "within", "occurrences", "put")),
)
"""What Python calls."""
TRUSTED: Final = ("impl__audit", "impl__scan", "fuzz__compiled__")
"""Functions whose names begin like this check no access, and leave no marks where they write."""
GUARDED: Final = (kernel.begin, kernel.expand, runs.run, small.expand)
"""Entries that may not end by themselves where there is a defect."""
BOUNDARIES: Final = (
    kernel.take_step,
    kernel.settle,
    runs.attempt,
    small.attempt,
    small.judge,
    small_steps._destroy,  # noqa: SLF001  # the two steps of the model alone that may turn out not to be allowed
    small_steps._finish,  # noqa: SLF001
)
"""Where verdicts land."""


@cache
def text() -> str:
    """Return the translated text: one file of plain functions over two arrays, which is Python still."""
    translator = Translator(seams(), {"driver": Driver, "runtime": Runtime})
    for function in ENTRIES:
        translator.add(function)
    draws = draw_functions(translator)
    return translator.translate() + "\n\n" + draws


@cache
def _inferred() -> tuple[Inference, dict[str, tuple[int, ...]]]:
    """Return the functions of the text, and its tables."""
    definitions: dict[str, ast.FunctionDef] = {}
    tables: dict[str, tuple[int, ...]] = {}
    for node in ast.parse(text()).body:
        if isinstance(node, ast.FunctionDef):
            definitions[node.name] = node
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            tables[node.targets[0].id] = ast.literal_eval(node.value)
    return Inference(definitions), tables


@cache
def source() -> str:
    """Return the C text."""
    known, tables = _inferred()
    boundaries = {name_of(function) for function in BOUNDARIES}
    parts = [_HEAD]
    parts += [f"static const word {name}[{len(words)}] = {{{', '.join(f'{word}LL' for word in words)}}};" for name, words in tables.items()]
    names = [name for name, function in known.functions.items() if not function.generator]
    parts += [f"{prototype(name, known.functions[name])};" for name in names]
    parts += [
        Emission(known, name, trusted=name.startswith(TRUSTED), boundary=name in boundaries, tables=tables, intrinsics=INTRINSICS).text()
        for name in names
    ]
    parts += [_entry(name_of(function), known) for function in ENTRIES]
    parts.append(f"const char signatures[] = {json.dumps(json.dumps(_signatures(known)))};")
    return "\n\n".join(parts) + "\n"


def _entry(name: str, known: Inference) -> str:
    """Return what Python calls: a view is passed as its address and its length."""
    function = known.functions[name]
    params, values = [], []
    for param in function.params:
        if function.names.get(param, WORD) == VIEW:
            params += [f"word *{param}_at", f"word {param}_n"]
            values.append(f"(view){{{param}_at, {param}_n}}")
        else:
            params.append(f"word {param}")
            values.append(param)
    result = c_type(function.returns)
    head = f"{result} entry_{name}({', '.join(params) or 'void'})"
    call = f"{name}({', '.join(values)});"
    if result == "void":
        return f"{head} {{ {call} }}"
    if name in {name_of(function) for function in GUARDED}:
        return f"{head} {{ guard(); {result} found_ = {call} unguard(); return found_; }}"
    return f"{head} {{ return {call} }}"


def _signatures(known: Inference) -> dict[str, tuple[list[str], str]]:
    """Return for each entry what its parameters are in C, and what it returns."""
    found = {}
    for name in [name_of(function) for function in ENTRIES]:
        function = known.functions[name]
        found[name] = ([function.names.get(param, WORD) for param in function.params], function.returns)
    return found

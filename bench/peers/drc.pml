/* Deferred reference counting: what may die, and what must.
 *
 * The rules of model/books.py within the scope `peers`, as in drc.tla: values that own nothing, one instance with one global, calls from
 * host to Wasm with arguments and results, collections, destructors that act. One turn of the loop is one small step; choices inside
 * it are made within `atomic`, where no state is stored. Bounds are given to the preprocessor: -DOBJECTS=3 and so on.
 *
 * Scratch variables are part of the state vector, because a d_step restores nothing else; they are cleared at the end of a step.
 */
#ifndef OBJECTS
#define OBJECTS 2            /* values that exist at once, at most 7 */
#endif
#ifndef ROOTS
#define ROOTS 2              /* references that the host holds at once */
#endif
#ifndef SLOTS
#define SLOTS 1              /* reference locals of an activation */
#endif
#ifndef ARGUMENTS
#define ARGUMENTS 1          /* most references in one transfer, at least 1 */
#endif
#ifndef CONTEXTS
#define CONTEXTS 2           /* depth of the stack of contexts, destructors not counted */
#endif
#ifndef DESTRUCTORS
#define DESTRUCTORS 1        /* nesting of destructors that act; deeper ones return at once */
#endif
#ifndef DESTRUCTOR_OPS
#define DESTRUCTOR_OPS 1     /* operations that one destructor may start */
#endif

#define DEPTH (CONTEXTS - 1 + DESTRUCTORS)   /* contexts above the host */
#define BOOKS (DESTRUCTORS + 1)              /* operations under way at once */
#define NAMES ((1 << OBJECTS) - 1)
#define NIL  255             /* no reference */
#define DEAD 254             /* a slot that nobody reads before it is written again */
#define BIT(n) (1 << (n))
#define NAME(cell) ((cell) < OBJECTS)
#define MASK(cell) (NAME(cell) -> BIT(cell) : 0)

#define ACTIVATION 1
#define DESTRUCTOR 2

#define DROP 1
#define HOST_SET 2
#define SET 3
#define GC 4
#define CALL 5
#define GET 6

typedef Context {
    byte kind;
    byte value;                /* destructor: the value */
    byte budget;             /* destructor: operations left */
    byte slot[SLOTS]         /* activation: its locals */
};
typedef Book {
    byte op;
    byte held;               /* names in the operation's hands */
    byte released;           /* names that have lost an owner to it */
    byte doomed;             /* unowned and on no stack when its collection began */
    byte touched;            /* passed to Wasm meanwhile */
    byte stacked;            /* on a stack when its collection began */
    bit collects;
    byte target;             /* get: the slot to be written */
    byte count;              /* call: arguments */
    byte arg[ARGUMENTS]      /* call: the arguments; get: the name */
};

byte live;                   /* names that exist and are not under destruction */
byte deferred;               /* names passed to Wasm since the last complete collection, or that survived it on a stack */
byte roots[OBJECTS];         /* how many references the host holds */
byte module = NIL;           /* what the instance was made of */
byte global = NIL;           /* its global */
Context stack[DEPTH];
byte depth;
Book book[BOOKS];
byte count;

/* Scratch. */
byte i, j, n, m, k, alive, source, total, rooted, dying, nested, innermost, stacked, held, lent, kept, may, names, results;
bit busy, collecting, can, ok, crowded;
byte arg[ARGUMENTS];

#define TOP stack[depth - 1]
#define LAST book[count - 1]
#define OWNED (rooted | MASK(global) | held)

/* Look at the state: who holds what, who acts, what may be done. */
inline look() {
    i = 0;
    do
    :: i < OBJECTS ->
        total = total + roots[i];
        rooted = rooted | (roots[i] > 0 -> BIT(i) : 0);
        i++
    :: else -> break
    od;
    i = 0;
    do
    :: i < depth ->
        if
        :: stack[i].kind == DESTRUCTOR ->
            nested++; innermost = i + 1; dying = dying | BIT(stack[i].value)
        :: else ->
            j = 0;
            do
            :: j < SLOTS -> stacked = stacked | MASK(stack[i].slot[j]); j++
            :: else -> break
            od
        fi;
        i++
    :: else -> break
    od;
    i = 0;
    do
    :: i < count ->
        held = held | book[i].held;
        collecting = collecting || book[i].collects;
        i++
    :: else -> break
    od;
    busy = count > nested;
    can = !busy && (innermost == 0 || stack[innermost - 1].budget > 0);
    i = 0; j = 0
}

/* Clear the scratch, and say what must hold: nobody holds the dead; at rest, nothing is lost. */
inline done() {
    d_step {
        total = 0; rooted = 0; dying = 0; nested = 0; innermost = 0; stacked = 0; held = 0; collecting = 0;
        look();
        assert(((OWNED | stacked | deferred) & ~live) == 0);
        assert(count > 0 || (live & ~(OWNED | stacked | deferred)) == 0);
        i = 0; j = 0; n = 0; m = 0; k = 0; alive = 0; source = 0; total = 0; rooted = 0; dying = 0; nested = 0; innermost = 0;
        stacked = 0; held = 0; lent = 0; kept = 0; may = 0; names = 0; results = 0;
        busy = 0; collecting = 0; can = 0; ok = 0; crowded = 0;
        do
        :: i < ARGUMENTS -> arg[i] = 0; i++
        :: else -> break
        od;
        i = 0
    }
}

/* Choose any bit of a mask that is not empty. */
inline pick(mask) {
    n = 0;
    do
    :: (mask >> n) & 1 -> break
    :: mask >> (n + 1) -> n++
    od;
    skip                     /* no loop may end where a d_step begins or ends */
}

/* Choose null or a root. */
inline pick_value() {
    pick((1 | rooted << 1));
    n = (n == 0 -> NIL : n - 1)
}

inline spend() {
    if
    :: innermost > 0 -> stack[innermost - 1].budget--
    :: else
    fi
}

inline unroot(name) {
    if
    :: NAME(name) -> roots[name]--
    :: else
    fi
}

inline push_activation() {
    stack[depth].kind = ACTIVATION;
    j = 0;
    do
    :: j < SLOTS -> stack[depth].slot[j] = NIL; j++
    :: else -> break
    od;
    depth++
}

inline pop() {
    depth--;
    stack[depth].kind = 0; stack[depth].value = 0; stack[depth].budget = 0;
    j = 0;
    do
    :: j < SLOTS -> stack[depth].slot[j] = 0; j++
    :: else -> break
    od;
    skip
}

inline open(what) {
    count++;
    LAST.op = what
}

inline close() {
    LAST.op = 0; LAST.held = 0; LAST.released = 0; LAST.doomed = 0; LAST.touched = 0; LAST.stacked = 0; LAST.collects = 0;
    LAST.target = 0; LAST.count = 0;
    j = 0;
    do
    :: j < ARGUMENTS -> LAST.arg[j] = 0; j++
    :: else -> break
    od;
    count--
}

/* A complete collection begins in the innermost operation. What those around it have yet to let go of is not owed. */
inline doom() {
    LAST.collects = 1;
    i = 0; lent = 0; rooted = 0; held = 0; stacked = 0;
    do
    :: i < count ->
        lent = lent | (i < count - 1 -> book[i].released : 0);
        held = held | book[i].held;
        i++
    :: else -> break
    od;
    i = 0;
    do
    :: i < OBJECTS -> rooted = rooted | (roots[i] > 0 -> BIT(i) : 0); i++
    :: else -> break
    od;
    i = 0;
    do
    :: i < depth ->
        j = 0;
        do
        :: j < SLOTS -> stacked = stacked | (stack[i].kind == ACTIVATION -> MASK(stack[i].slot[j]) : 0); j++
        :: else -> break
        od;
        i++
    :: else -> break
    od;
    LAST.stacked = stacked;
    LAST.doomed = live & ~(lent | OWNED | stacked)
}

/* Names are passed to Wasm: their death is deferred, and collections under way need not destroy them. */
inline defer() {
    deferred = deferred | names;
    i = 0;
    do
    :: i < count -> book[i].touched = book[i].touched | names; i++
    :: else -> break
    od
}

inline settle() {
    j = 0;
    do
    :: j < SLOTS -> TOP.slot[j] = ((alive >> j) & 1 -> TOP.slot[j] : DEAD); j++
    :: else -> break
    od
}

/* Whatever stood in the global has lost an owner. */
inline store(name, what) {
    m = global;
    global = name;
    if
    :: NAME(m) -> open(what); LAST.released = BIT(m)
    :: else
    fi
}

inline host() {
    if
    :: can && total < ROOTS && (NAMES & ~(live | dying)) ->                                    /* new */
        d_step {
            n = 0;
            do
            :: ((live | dying) >> n) & 1 -> n++
            :: else -> break
            od;
            live = live | BIT(n); roots[n] = 1; spend()
        }
    :: can && rooted ->                                                                        /* drop */
        pick(rooted);
        d_step { roots[n]--; spend(); open(DROP); LAST.released = BIT(n) }
    :: can && module == NIL ->                                                                 /* instantiate */
        pick(3); m = n;
        pick_value();
        d_step { module = m; global = n; unroot(n); spend() }
    :: can && module != NIL && 1 + depth - nested < CONTEXTS ->                                /* call_wasm */
        do
        :: k < ARGUMENTS && k < SLOTS ->
            pick_value();
            d_step {
                arg[k] = n; k++;
                if
                :: NAME(n) ->
                    names = names | BIT(n); roots[n]--;
                    rooted = (roots[n] == 0 -> rooted & ~BIT(n) : rooted)
                :: else
                fi
            }
        :: break
        od;
        if
        :: names && true -> crowded = 1
        :: true
        fi;
        d_step {
            spend();
            if
            :: crowded && !collecting ->
                open(CALL); LAST.held = names; LAST.count = k;
                i = 0;
                do
                :: i < k -> LAST.arg[i] = arg[i]; i++
                :: else -> break
                od;
                defer(); doom()
            :: else ->
                defer();
                push_activation();
                i = 0;
                do
                :: i < k -> TOP.slot[i] = arg[i]; i++
                :: else -> break
                od
            fi;
            skip
        }
    :: can && module != NIL && total < ROOTS ->                                                /* host_global_get */
        d_step {
            if
            :: NAME(global) -> roots[global]++
            :: else
            fi;
            spend()
        }
    :: can && module != NIL ->                                                                 /* host_global_set */
        pick_value();
        d_step { unroot(n); spend(); store(n, HOST_SET) }
    :: can ->                                                                                  /* gc */
        d_step {
            spend();
            if
            :: collecting
            :: else -> open(GC); doom()
            fi
        }
    :: depth > 0 -> d_step { pop() }                                                           /* end */
    fi
}

/* The slots that may be read, and any subset of them that is still read after the safepoint. */
inline readable() {
    d_step {
        may = 0; j = 0;
        do
        :: j < SLOTS -> may = may | (TOP.slot[j] != DEAD -> BIT(j) : 0); j++
        :: else -> break
        od
    }
}

inline pick_alive() {
    k = 0;
    do
    :: k < SLOTS && ((may >> k) & 1) ->
        if
        :: alive = alive | BIT(k)
        :: true
        fi;
        k++
    :: k < SLOTS && !((may >> k) & 1) -> k++
    :: k == SLOTS -> break
    od;
    skip
}

inline wasm() {
    readable();
    if
    :: can ->                                                                                  /* global_get */
        pick((BIT(SLOTS) - 1)); source = n;
        d_step { may = may & ~BIT(source) };
        pick_alive();
        if
        :: NAME(global) -> crowded = 1
        :: true
        fi;
        d_step {
            spend(); settle();
            names = MASK(global);
            if
            :: crowded && !collecting ->
                open(GET); LAST.held = names; LAST.target = source; LAST.arg[0] = global;
                defer(); doom()
            :: else ->
                defer(); TOP.slot[source] = global
            fi
        }
    :: can && may ->                                                                           /* global_set */
        pick(may); source = n;
        pick_alive();
        d_step { n = TOP.slot[source]; spend(); settle(); store(n, SET) }
    :: true ->                                                                                 /* return */
        do
        :: may && results < ARGUMENTS && total + results < ROOTS -> pick(may); arg[results] = n; results++
        :: break
        od;
        skip;
        d_step {
            i = 0;
            do
            :: i < results ->
                n = TOP.slot[arg[i]];
                if
                :: NAME(n) -> roots[n]++
                :: else
                fi;
                i++
            :: else -> break
            od;
            pop()
        }
    fi
}

/* An operation is under way: a value that may die is destroyed, or it finishes, if all that must be dead is dead. */
inline under_way() {
    d_step {
        may = (LAST.collects -> live : live & LAST.released) & ~(OWNED | stacked);
        kept = (LAST.collects -> deferred & (LAST.stacked | LAST.touched) : deferred);
        held = 0; i = 0;
        do
        :: i < count - 1 -> lent = lent | book[i].released; held = held | book[i].held; i++
        :: else -> break
        od;
        names = (LAST.released | (deferred & ~kept)) & live & ~kept & ~lent;
        ok = (!LAST.collects || (LAST.doomed & live & ~LAST.touched) == 0) && (names & ~(OWNED | stacked | LAST.held)) == 0
    };
    if
    :: ok ->                                                                                   /* finish */
        d_step {
            deferred = kept;
            if
            :: LAST.op == CALL ->
                push_activation();
                i = 0;
                do
                :: i < LAST.count -> TOP.slot[i] = LAST.arg[i]; i++
                :: else -> break
                od
            :: LAST.op == GET -> TOP.slot[LAST.target] = LAST.arg[0]
            :: else
            fi;
            close()
        }
    :: may ->                                                                                  /* destroy */
        pick(may);
        d_step {
            live = live & ~BIT(n); deferred = deferred & ~BIT(n);
            i = 0;
            do
            :: i < count ->
                book[i].released = book[i].released & ~BIT(n);
                book[i].doomed = book[i].doomed & ~BIT(n);
                book[i].touched = book[i].touched & ~BIT(n);
                book[i].stacked = book[i].stacked & ~BIT(n);
                i++
            :: else -> break
            od;
            if
            :: nested < DESTRUCTORS ->
                stack[depth].kind = DESTRUCTOR; stack[depth].value = n; stack[depth].budget = DESTRUCTOR_OPS; depth++
            :: else
            fi
        }
    fi
}

active proctype drc() {
    do
    :: atomic {
        d_step { look() };
        if
        :: busy -> under_way()
        :: !busy && depth > 0 && stack[depth - 1].kind == ACTIVATION -> wasm()
        :: !busy && (depth == 0 || stack[depth - 1].kind == DESTRUCTOR) -> host()
        fi;
        done()
    }
    od
}

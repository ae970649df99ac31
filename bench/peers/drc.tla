-------------------------------- MODULE drc --------------------------------
(* Deferred reference counting: what may die, and what must.                *)
(*                                                                          *)
(* The rules of model/books.py within the scope `peers`: values that own    *)
(* nothing, one instance with one global, calls from host to Wasm with      *)
(* arguments and results, collections, destructors that act. A step is what *)
(* fuzz/small_steps.py calls one: an operation begins; a value is destroyed;*)
(* a destructor does an operation or ends; the operation finishes. So TLC   *)
(* finds the same distinct states as `drc check --model-only`.              *)
EXTENDS Integers, FiniteSets, Sequences

CONSTANTS
    Objects,        \* values that exist at once
    Roots,          \* references that the host holds at once
    Slots,          \* reference locals of an activation
    Arguments,      \* most references in one transfer
    Contexts,       \* depth of the stack of contexts, destructors not counted
    Destructors,    \* nesting of destructors that act; deeper ones return at once
    DestructorOps   \* operations that one destructor may start

Null == -1          \* no reference
Dead == -2          \* a slot that nobody reads before it is written again
Names == 0 .. Objects - 1
Modules == {0, 1}   \* what can be instantiated

VARIABLES
    live,           \* names that exist and are not under destruction
    deferred,       \* names passed to Wasm since the last complete collection, or that survived it on a stack
    roots,          \* for each name, how many references the host holds
    module,         \* what the instance was made of; Null while there is none
    global,         \* the instance's global: a name or Null
    stack,          \* contexts above the host, the youngest last
    books           \* operations under way, the innermost last

vars == <<live, deferred, roots, module, global, stack, books>>

Min(a, b) == IF a < b THEN a ELSE b
RECURSIVE Sum(_)
Sum(names) == IF names = {} THEN 0 ELSE LET n == CHOOSE n \in names : TRUE IN roots[n] + Sum(names \ {n})
RootsTotal == Sum(Names)

(* Contexts. An activation has slots; a destructor has a value and a budget. *)
Activation(slots) == [kind |-> "wasm", slots |-> slots]
Destructor(n) == [kind |-> "destructor", of |-> n, budget |-> DestructorOps]

Acting == {i \in DOMAIN stack : stack[i].kind = "destructor"}
Dying == {stack[i].of : i \in Acting}
Innermost == IF Acting = {} THEN 0 ELSE CHOOSE i \in Acting : \A j \in Acting : j <= i
Top == stack[Len(stack)]
Pop == SubSeq(stack, 1, Len(stack) - 1)
WasmActs == stack # <<>> /\ Top.kind = "wasm"
HostActs == IF stack = <<>> THEN TRUE ELSE Top.kind = "destructor"

SlotsOf(stk) == UNION {{stk[i].slots[s] : s \in 1 .. Slots} : i \in {j \in DOMAIN stk : stk[j].kind = "wasm"}}
OnStack(stk) == SlotsOf(stk) \cap Names
Readable == {s \in 1 .. Slots : Top.slots[s] # Dead}
Settled(alive) == [s \in 1 .. Slots |-> IF s \in alive THEN Top.slots[s] ELSE Dead]

(* Books: what an operation under way holds, has let go of, and owes. `op` says which it is, and what its second half needs. *)
Book(held, released, op) ==
    [held |-> held, released |-> released, doomed |-> {}, touched |-> {}, stacked |-> {}, collects |-> FALSE, op |-> op]
Last(bks) == bks[Len(bks)]
HeldBy(bks) == UNION {bks[i].held : i \in DOMAIN bks}
ReleasedBy(bks) == UNION {bks[i].released : i \in DOMAIN bks}
Touch(bks, names) == [i \in DOMAIN bks |-> [bks[i] EXCEPT !.touched = @ \cup names]]
Rooted(rts) == {n \in Names : rts[n] > 0}

Pending == Len(books) > Cardinality(Acting)
Collecting == \E i \in DOMAIN books : books[i].collects

(* An operation may begin where nothing is pending, and if a destructor acts, within its budget. *)
MayBegin == ~Pending /\ (IF Acting = {} THEN TRUE ELSE stack[Innermost].budget > 0)
Spent(stk) == IF Acting = {} THEN stk ELSE [stk EXCEPT ![Innermost].budget = @ - 1]

(* A complete collection begins. What an operation around it has yet to let go of is not owed. *)
Doom(book, rts, stk) ==
    LET safe == ReleasedBy(books) \cup Rooted(rts) \cup HeldBy(books) \cup book.held \cup ({global} \cap Names) \cup OnStack(stk)
    IN [book EXCEPT !.collects = TRUE, !.stacked = OnStack(stk), !.doomed = live \ safe]

(* The second half of a transfer. *)
Enter(stk, args) == Append(stk, Activation([s \in 1 .. Slots |-> IF s <= Len(args) THEN args[s] ELSE Null]))
Write(stk, target, name) == [stk EXCEPT ![Len(stk)].slots[target] = name]
Completed(stk, op) ==
    CASE op.is = "call" -> Enter(stk, op.args)
      [] op.is = "get" -> Write(stk, op.target, op.name)
      [] OTHER -> stk

(* A transfer passes names to Wasm. If the chunk is full it collects first, unless a collection is under way already. *)
Transfer(names, full, rts, stk, op) ==
    /\ deferred' = deferred \cup names
    /\ IF full /\ ~Collecting
       THEN LET book == [Book(names, {}, op) EXCEPT !.touched = names]
            IN stack' = stk /\ books' = Append(Touch(books, names), Doom(book, rts, stk))
       ELSE stack' = Completed(stk, op) /\ books' = Touch(books, names)

(* A store: whatever stood in the global has lost an owner. *)
Store(name, op) ==
    /\ global' = name
    /\ books' = IF global = Null THEN books ELSE Append(books, Book({}, {global}, op))

-----------------------------------------------------------------------------
(* Operations of the host, and of destructors. *)

Free == Names \ (live \cup Dying)
New ==
    /\ MayBegin /\ HostActs /\ RootsTotal < Roots /\ Free # {}
    /\ LET n == CHOOSE n \in Free : \A m \in Free : n <= m
       IN live' = live \cup {n} /\ roots' = [roots EXCEPT ![n] = 1]
    /\ stack' = Spent(stack)
    /\ UNCHANGED <<deferred, module, global, books>>

Drop(n) ==
    /\ MayBegin /\ HostActs /\ roots[n] > 0
    /\ roots' = [roots EXCEPT ![n] = @ - 1]
    /\ books' = Append(books, Book({}, {n}, [is |-> "drop"]))
    /\ stack' = Spent(stack)
    /\ UNCHANGED <<live, deferred, module, global>>

Unrooted(n) == IF n = Null THEN roots ELSE [roots EXCEPT ![n] = @ - 1]
RootedOrNull == {Null} \cup Rooted(roots)

Instantiate(m, n) ==
    /\ MayBegin /\ HostActs /\ module = Null
    /\ module' = m /\ global' = n /\ roots' = Unrooted(n)
    /\ stack' = Spent(stack)
    /\ UNCHANGED <<live, deferred, books>>

ArgumentLists ==
    {args \in UNION {[1 .. k -> RootedOrNull] : k \in 0 .. Min(Arguments, Slots)} :
        \A n \in Names : Cardinality({i \in DOMAIN args : args[i] = n}) <= roots[n]}

CallWasm(args, full) ==
    /\ MayBegin /\ HostActs /\ module # Null
    /\ 1 + Len(stack) - Cardinality(Acting) < Contexts
    /\ LET names == {args[i] : i \in DOMAIN args} \cap Names
           left == [n \in Names |-> roots[n] - Cardinality({i \in DOMAIN args : args[i] = n})]
       IN /\ full => names # {}
          /\ roots' = left
          /\ Transfer(names, full, left, Spent(stack), [is |-> "call", args |-> args])
    /\ UNCHANGED <<live, module, global>>

HostGlobalGet ==
    /\ MayBegin /\ HostActs /\ module # Null /\ RootsTotal < Roots
    /\ roots' = IF global = Null THEN roots ELSE [roots EXCEPT ![global] = @ + 1]
    /\ stack' = Spent(stack)
    /\ UNCHANGED <<live, deferred, module, global, books>>

HostGlobalSet(n) ==
    /\ MayBegin /\ HostActs /\ module # Null
    /\ roots' = Unrooted(n)
    /\ Store(n, [is |-> "host set"])
    /\ stack' = Spent(stack)
    /\ UNCHANGED <<live, deferred, module>>

Collect ==
    /\ MayBegin /\ HostActs
    /\ stack' = Spent(stack)
    /\ books' = IF Collecting THEN books ELSE Append(books, Doom(Book({}, {}, [is |-> "gc"]), roots, stack))
    /\ UNCHANGED <<live, deferred, roots, module, global>>

(* Operations of Wasm. `alive`: the slots that are still read after the safepoint. *)

GlobalGet(target, alive, full) ==
    /\ full => global # Null
    /\ LET settled == [Spent(stack) EXCEPT ![Len(stack)].slots = Settled(alive)]
       IN Transfer({global} \cap Names, full, roots, settled, [is |-> "get", target |-> target, name |-> global])
    /\ UNCHANGED <<live, roots, module, global>>

GlobalSet(source, alive) ==
    /\ Store(Top.slots[source], [is |-> "set"])
    /\ stack' = [Spent(stack) EXCEPT ![Len(stack)].slots = Settled(alive)]
    /\ UNCHANGED <<live, deferred, roots, module>>

ResultLists == UNION {[1 .. k -> Readable] : k \in 0 .. Min(Arguments, Roots - RootsTotal)}

Return(results) ==
    /\ roots' = [n \in Names |-> roots[n] + Cardinality({i \in DOMAIN results : Top.slots[results[i]] = n})]
    /\ stack' = Pop
    /\ UNCHANGED <<live, deferred, module, global, books>>

(* A destructor ends: the value's name is free again. *)
End ==
    /\ ~Pending /\ stack # <<>> /\ Top.kind = "destructor"
    /\ stack' = Pop
    /\ UNCHANGED <<live, deferred, roots, module, global, books>>

-----------------------------------------------------------------------------
(* What an operation under way may do, and must have done. *)

Owned(bks, rts, glb) == Rooted(rts) \cup ({glb} \cap Names) \cup HeldBy(bks)

Mortal ==
    LET candidates == IF Last(books).collects THEN live ELSE live \cap Last(books).released
    IN candidates \ (Owned(books, roots, global) \cup OnStack(stack))

Destroy(n) ==
    /\ live' = live \ {n}
    /\ deferred' = deferred \ {n}
    /\ books' = [i \in DOMAIN books |->
                    [books[i] EXCEPT !.released = @ \ {n}, !.doomed = @ \ {n}, !.touched = @ \ {n}, !.stacked = @ \ {n}]]
    /\ stack' = IF Cardinality(Acting) < Destructors THEN Append(stack, Destructor(n)) ELSE stack
    /\ UNCHANGED <<roots, module, global>>

Finish ==
    LET book == Last(books)
        outer == SubSeq(books, 1, Len(books) - 1)
        after == Completed(stack, book.op)
        kept == IF book.collects THEN deferred \cap (book.stacked \cup book.touched) ELSE deferred
        (* Whose deferral ends has nothing left but its owners. *)
        released == book.released \cup (deferred \ kept)
        due == ((released \cap live) \ kept) \ ReleasedBy(outer)
    IN /\ book.collects => (book.doomed \cap live) \subseteq book.touched
       /\ due \subseteq Owned(outer, roots, global) \cup OnStack(after)
       /\ deferred' = kept
       /\ stack' = after
       /\ books' = outer
       /\ UNCHANGED <<live, roots, module, global>>

-----------------------------------------------------------------------------
Init ==
    /\ live = {} /\ deferred = {}
    /\ roots = [n \in Names |-> 0]
    /\ module = Null /\ global = Null
    /\ stack = <<>> /\ books = <<>>

Host ==
    \/ New
    \/ \E n \in Names : Drop(n)
    \/ \E m \in Modules, n \in RootedOrNull : Instantiate(m, n)
    \/ \E args \in ArgumentLists, full \in BOOLEAN : CallWasm(args, full)
    \/ HostGlobalGet
    \/ \E n \in RootedOrNull : HostGlobalSet(n)
    \/ Collect

Wasm ==
    /\ ~Pending /\ WasmActs
    /\ \/ /\ MayBegin
          /\ \/ \E target \in 1 .. Slots, full \in BOOLEAN :
                  \E alive \in SUBSET (Readable \ {target}) : GlobalGet(target, alive, full)
             \/ \E source \in Readable, alive \in SUBSET Readable : GlobalSet(source, alive)
       \/ \E results \in ResultLists : Return(results)

UnderWay == Pending /\ ((\E n \in Mortal : Destroy(n)) \/ Finish)

Next == Host \/ Wasm \/ End \/ UnderWay
Spec == Init /\ [][Next]_vars

-----------------------------------------------------------------------------
(* Whoever is named lives; at rest, what nobody owns and no activation reads is deferred. That something can always be done is the *)
(* absence of deadlock, which TLC looks for by itself. *)

NobodyHoldsTheDead == Owned(books, roots, global) \cup OnStack(stack) \cup deferred \subseteq live
NothingIsLost == books = <<>> => live \subseteq Owned(books, roots, global) \cup OnStack(stack) \cup deferred
=============================================================================

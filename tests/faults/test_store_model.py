"""The store's protocol, walked through whole: what was acknowledged keeps its data, whatever stops wherever.

`protocol_model.py` has the steps; each test here is a set of processes that run at once. A test of an ablation takes one
step out of the protocol and prints the shortest way into the loss that follows.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from faults.early_model import push_in_pieces, stage_and_commit
from faults.model import Items, Program, Walk, walk
from faults.protocol_model import (
    YOUNG,
    Rules,
    clock,
    collect,
    faults_of,
    heart,
    move_alias,
    push,
    remove,
    restore,
)

LOST = "an acknowledged version lacks data"
PARTIAL = "a partial version is visible"
NO_UNDO = "a deletion can't be undone"
DANGLING = "an alias points at nothing"

STRONG, WEAK = Rules(), Rules(create_only=False)
X, XY = ("x",), ("x", "y")

NOTHING: Items = {}
ORPHAN: Items = {("blob", "x"): True}
ORPHANS: Items = {("blob", "x"): True, ("blob", "y"): True}
OTHER: Items = {("blob", "x"): True, ("version", "O"): X, ("acked", "O"): (X, frozenset())}
ALIASED: Items = {**OTHER, ("alias", "a"): "O", ("aliased", "a"): "O"}
DELETED: Items = {("blob", "x"): True, ("deleted", "O"): (X, YOUNG)}
RESTORABLE: Items = {**DELETED, ("undo", "O"): X}

Programs = dict[str, Program]


def pushing(rules: Rules, who: str = "A", contents: tuple[str, ...] = X, **about: Any) -> Program:
    return partial(push, who, contents, rules, **about)


def collecting(rules: Rules, who: str = "gc", **about: Any) -> Program:
    return partial(collect, who, rules, **about)


def two_pushes(rules: Rules, **about: Any) -> Programs:
    return {"A": pushing(rules), "B": pushing(rules, "B", newest=True), "gc": collecting(rules, **about)}


def two_collectors(rules: Rules, **about: Any) -> Programs:
    return {"A": pushing(rules), "gc": collecting(rules, **about), "gc2": collecting(rules, "gc2", **about)}


def cases(rules: Rules) -> dict[str, tuple[Items, Programs]]:
    """Everything that may run at once, by name; small enough that all of it takes seconds."""
    gone = {"may_go": ("O",), "restorable": False}
    kept = {"may_go": ("O",)}
    C, C_gone, C_kept = collecting(rules), collecting(rules, **gone), collecting(rules, **kept)
    A, N = pushing(rules), pushing(rules, newest=True)
    R, U = partial(restore, "R", "O", rules), partial(remove, "rm", "O")
    U_gone = partial(remove, "rm", "O", restorable=False)
    M, S, K = partial(move_alias, "M", "a", "O", rules), partial(stage_and_commit, "S", X, rules), clock
    H = partial(heart, "A2", frozenset(X), "A1", times=2)
    P, early = partial(push_in_pieces, "A", X, rules), partial(heart, "A.0.1", frozenset(X), None)
    return {
        "push of new content, collector": (NOTHING, {"A": A, "gc": C}),
        "push over orphans, collector": (ORPHANS, {"A": pushing(rules, contents=XY), "gc": C}),
        "push of a version's content, collector": (OTHER, {"A": A, "gc": C_gone}),
        "push of the newest version again, collector": (OTHER, {"A": N, "gc": C_gone}),
        "push of the newest version again, collector that keeps deletions": (OTHER, {"A": N, "gc": C_kept}),
        "push with an alias, collector": (OTHER, {"A": pushing(rules, newest=True, alias="a"), "gc": C_gone}),
        "push with an alias, an alias moved away, collector": (
            ALIASED,
            {"A": pushing(rules, newest=True, alias="a"), "B": pushing(rules, "B", ("y",), alias="a"), "gc": C_kept},
        ),
        "two pushes, collector": (ORPHAN, two_pushes(rules)),
        "two pushes of a version's content, collector": (OTHER, two_pushes(rules, **kept)),
        "push, two collectors": (ORPHAN, two_collectors(rules)),
        "push of a version's content, two collectors": (OTHER, two_collectors(rules, **kept)),
        "push with renewals, collector": (ORPHAN, {"A": A, "heart": H, "gc": C}),
        "push in pieces, collector": (ORPHANS, {"A": partial(push_in_pieces, "A", XY, rules), "gc": C}),
        "push in pieces of a version's content, collector": (OTHER, {"A": P, "gc": C_gone}),
        "push in pieces with renewals, collector": (ORPHAN, {"A": P, "heart": early, "gc": C}),
        "push in pieces, two collectors": (NOTHING, {"A": P, "gc": C, "gc2": collecting(rules, "gc2")}),
        "staged under a pin and committed, collector": (ORPHAN, {"S": S, "gc": C}),
        "push with an alias, two collectors": (
            OTHER,
            {"A": pushing(rules, newest=True, alias="a"), "gc": C_gone, "gc2": collecting(rules, "gc2", **gone)},
        ),
        "alias move, collector": (OTHER, {"M": M, "gc": C_kept}),
        "alias move, two collectors": (OTHER, {"M": M, "gc": C_gone, "gc2": collecting(rules, "gc2", **gone)}),
        "alias move, removal, time, collector": (OTHER, {"M": M, "rm": U, "time": K, "gc": C_kept}),
        "push of the newest version again, removal, time, collector": (OTHER, {"A": N, "rm": U, "time": K, "gc": C}),
        "push of the newest version again, removal, restore": (OTHER, {"A": N, "rm": U, "R": R}),
        "retention, time, restore": (OTHER, {"gc": C_kept, "time": K, "R": R}),
        "restore, time, collector": (RESTORABLE, {"R": R, "time": K, "gc": C_kept}),
        "restore, time, push, collector": (RESTORABLE, {"R": R, "time": K, "A": A, "gc": C_kept}),
        "restore, collector that takes all": (DELETED, {"R": R, "gc": C_gone}),
        "restore, removal, time, collector": (RESTORABLE, {"R": R, "rm": U, "time": K, "gc": C_kept}),
        "restore, removal, collector that takes all": (DELETED, {"R": R, "rm": U_gone, "gc": C_gone}),
        "restore, time, two collectors": (
            RESTORABLE,
            {"R": R, "time": K, "gc": C_kept, "gc2": collecting(rules, "gc2", **kept)},
        ),
    }


LONG = {
    "push with renewals, two collectors": lambda rules: (
        ORPHAN,
        {**two_collectors(rules), "heart": partial(heart, "A2", frozenset(X), "A1", times=2)},
    ),
    "staged, two collectors": lambda rules: (
        ORPHAN,
        {"S": partial(stage_and_commit, "S", X, rules), "gc": collecting(rules), "gc2": collecting(rules, "gc2")},
    ),
    "push of a version's content, two collectors that take all": lambda rules: (
        OTHER,
        two_collectors(rules, may_go=("O",), restorable=False),
    ),
    "two pushes of a version's content, collector that takes all": lambda rules: (
        OTHER,
        two_pushes(rules, may_go=("O",), restorable=False),
    ),
    "two restores, removal, time, collector": lambda rules: (
        RESTORABLE,
        {
            "R": partial(restore, "R", "O", rules),
            "R2": partial(restore, "R2", "O", rules),
            "rm": partial(remove, "rm", "O"),
            "time": clock,
            "gc": collecting(rules, may_go=("O",)),
        },
    ),
}

LARGE = ("push with an alias, two collectors", "two pushes, collector", "restore, time, two collectors")
IN_CI = ("push with renewals, two collectors",)


def check(name: str, found: Walk, allowed: set[str]) -> None:
    print(f"{name}: {found}")
    assert found.states > 50
    assert set(found.faults) <= allowed, str(found)


@pytest.mark.parametrize("name", cases(STRONG))
def test_nothing_is_lost_and_nothing_partial_seen(name: str) -> None:
    check(name, walk(*cases(STRONG)[name], faults_of), set())


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.minutes if name in LARGE else ()) for name in cases(WEAK)]
)
def test_without_atomic_create_partials_are_never_acknowledged(name: str) -> None:
    """Here a push that slept may make visible what lacks data. It is not told that it is done."""
    check(name, walk(*cases(WEAK)[name], faults_of), {PARTIAL})


def test_partials_do_appear_without_atomic_create() -> None:
    found = walk(ORPHAN, {"A": pushing(WEAK), "gc": collecting(WEAK)}, faults_of)
    print(found)
    assert found.faults[PARTIAL] > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "rules",
    [pytest.param(STRONG, id="create-only"), pytest.param(WEAK, id="no atomic create", marks=pytest.mark.minutes)],
)
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in IN_CI else pytest.mark.minutes) for name in LONG]
)
def test_longer_ones(name: str, rules: Rules) -> None:
    check(name, walk(*LONG[name](rules), faults_of), set() if rules.create_only else {PARTIAL})


def one_push(rules: Rules) -> tuple[Items, Programs]:
    return ORPHAN, {"A": pushing(rules), "gc": collecting(rules)}


ABLATIONS: dict[str, tuple[Rules, str, Any]] = {
    "no lease": (replace(STRONG, lease=False), LOST, one_push),
    "no condemned list": (replace(STRONG, condemn=False), LOST, one_push),
    "grace time alone": (replace(STRONG, lease=False, condemn=False, grace_only=True), LOST, one_push),
    "a condemned key is used again": (replace(STRONG, avoid_condemned=False), LOST, one_push),
    "leases are read before the list is written": (replace(STRONG, leases_after_condemning=False), LOST, one_push),
    "no fence, the lease is not looked at": (replace(STRONG, fence=False, ask_lease=False), LOST, one_push),
    "the lease is not looked at, no atomic create": (replace(WEAK, ask_lease=False), LOST, one_push),
    "the list goes before the deletes": (replace(STRONG, list_stays=False), LOST, one_push),
    "no fence": (replace(STRONG, fence=False), PARTIAL, one_push),
    "fences where a key can't be created once": (
        replace(WEAK, fence_on_weak_servers=True),
        LOST,
        lambda rules: (ORPHAN, two_pushes(rules)),
    ),
    "a deleted version's blobs are taken without a fence": (
        replace(STRONG, fence_before_taking=False),
        PARTIAL,
        lambda rules: cases(rules)["restore, collector that takes all"],
    ),
    "a restore does not mind a fence": (
        replace(STRONG, restore_minds_fences=False),
        LOST,
        lambda rules: cases(rules)["restore, time, push, collector"],
    ),
    "a restore takes the tombstone away": (
        replace(STRONG, restore_keeps_tombstone=False),
        NO_UNDO,
        lambda rules: cases(rules)["restore, removal, time, collector"],
    ),
    "a version goes in the collection that broke its lease": (
        replace(STRONG, spare_broken_versions=False),
        LOST,
        lambda rules: cases(rules)["push of the newest version again, collector"],
    ),
    "the leases of pieces are not looked at": (
        replace(STRONG, ask_early_leases=False),
        LOST,
        lambda rules: (ORPHAN, {"A": partial(push_in_pieces, "A", X, rules), "gc": collecting(rules)}),
    ),
    "the lease is not looked at after the aliases": (
        replace(STRONG, ask_after_aliases=False),
        DANGLING,
        lambda rules: cases(rules)["push with an alias, two collectors"],
    ),
}


@pytest.mark.parametrize("name", ABLATIONS)
def test_each_step_is_needed(name: str) -> None:
    rules, fault, programs = ABLATIONS[name]
    found = walk(*programs(rules), faults_of, until=fault)
    print(f"{name}: {found}")
    assert fault in found.traces, str(found)

"""What can be known to be wrong with a search before it starts: conditions of the space, and what does not go together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from cluster.document import Document, Path
from cluster.space import Space, in_order, same
from tlgan.errors import Problem, did_you_mean

CHANGEABLE = (
    "train.lr_g", "train.lr_d", "train.beta1", "train.beta2", "train.ema_kimg",
    "transfer.freeze_d", "transfer.freeze_g", "loss.r1", "loss.gp",
)  # fmt: skip
"""What may change while a training is under way."""


def check_search(document: Document, at: Path, raw_space: Mapping[str, Any]) -> Iterator[Problem]:
    yield from _conditions(document, at, raw_space)
    yield from _combinations(document, at, raw_space)


def spaces_of(raw_space: Mapping[str, Any]) -> dict[str, Space]:
    """The entries that are valid by themselves."""
    found = {}
    for path, spec in raw_space.items():
        try:
            found[path] = spec if isinstance(spec, Space) else Space.model_validate(spec)
        except ValidationError:
            continue  # said elsewhere
    return found


def contexts(space: Mapping[str, Space], path: str, seen: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """Values of other fields under which `path` is sampled: each wanted value once, conditions of conditions with their first."""
    found: list[dict[str, Any]] = [{}]
    for other in space[path].when or {}:
        if other in seen:  # a circle, said elsewhere
            continue
        outer = contexts(space, other, (*seen, path))[0] if other in space else {}
        found = [{**one, **outer, other: value} for one in found for value in space[path].wanted(other)]
    return found


def _conditions(document: Document, at: Path, raw_space: Mapping[str, Any]) -> Iterator[Problem]:
    space, bad = spaces_of(raw_space), False
    for path, one in space.items():
        for other in one.when or {}:
            where = (*at, "space", path, "when", other)
            if other not in space or other == path:
                bad = True
                hint = did_you_mean(other, [name for name in space if name != path])
                yield document.problem(where, f'"{other}" is not another field of the space', hint, key=True)
                continue
            for value in one.wanted(other):
                choice = space[other].choice
                if not space[other].has(value) or (choice is not None and not same(value, choice)):
                    bad = True
                    yield document.problem(where, f"{other} never is {value!r} in this space")
    if not bad:
        try:
            in_order(space)
        except ValueError as error:
            yield document.problem((*at, "space"), f"conditions in {error}")


def _combinations(document: Document, at: Path, raw_space: Mapping[str, Any]) -> Iterator[Problem]:
    algo = document.get((*at, "search", "algo")) or "random"
    scheduler = document.get((*at, "early_stop", "scheduler"))
    if scheduler is None and isinstance(document.get((*at, "early_stop")), dict):
        scheduler = "asha"
    if algo == "pbt":
        for path in raw_space:
            if path not in CHANGEABLE:
                hint = f"pbt can search {', '.join(CHANGEABLE)}"
                yield document.problem(
                    (*at, "space", path), f"{path} can't change while a training is under way", hint, key=True
                )
        if scheduler not in (None, "none"):
            yield document.problem(
                (*at, "early_stop"), "pbt stops no trial early, it replaces it", "leave early_stop out"
            )
        if document.get((*at, "search", "trials")) == 1:
            yield document.problem((*at, "search", "trials"), "expected a population of at least 2, received 1")
    if scheduler == "hyperband":
        for path in ("train", "train.kimg"):
            if path in raw_space:
                message = f"hyperband gives out the budget itself, {path} can't be searched"
                yield document.problem((*at, "space", path), message, "use asha", key=True)
        if algo == "tpe":
            hint = "use asha or median"
            yield document.problem(
                (*at, "early_stop", "scheduler"), "tpe needs outcomes, and hyperband keeps trials waiting", hint
            )

"""Walks through every interleaving of a few processes over one shared store.

A process is a generator that yields calls (`put(key, value)`, `listing("lease")`, ...) and is sent their answers. Between
two calls anything may happen, and a process may stop for ever at any call: every state that can be reached is looked
at, whoever goes on from there. States are told apart by the store's content and by where each process stands (its
position and its local variables), so each is visited once. The elements that a loop with calls goes over must differ
from each other, for a loop's own position is no local variable.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from types import GeneratorType
from typing import Any, NamedTuple

Key = tuple[str, str]
Items = dict[Key, Any]
World = frozenset[tuple[Key, Any]]


class Call(NamedTuple):
    """`act` maps the store's content, which it may change, to an answer; `choose` has several answers instead."""

    name: str
    args: tuple[Hashable, ...]
    act: Callable[..., Any]

    def __str__(self) -> str:
        return f"{self.name}({', '.join(map(_text, self.args))})"


Process = Generator[Call, Any, None]
Program = Callable[[], Process]


def call(act: Callable[..., Any]) -> Callable[..., Call]:
    """Makes `act(items, *args)` a call that processes can yield."""
    return lambda *args: Call(act.__name__, args, act)


@call
def put(items: Items, key: Key, value: Any) -> None:
    items[key] = value


@call
def put_if_absent(items: Items, key: Key, value: Any) -> bool:
    if key in items:
        return False
    items[key] = value
    return True


@call
def get(items: Items, key: Key) -> Any:
    return items.get(key)


@call
def delete(items: Items, key: Key) -> None:
    items.pop(key, None)


@call
def listing(items: Items, kind: str) -> tuple[tuple[str, Any], ...]:
    """Names and values of one kind of objects."""
    return tuple(sorted((name, value) for (found, name), value in items.items() if found == kind))


@call
def choose(items: Items, *answers: Any) -> tuple[Any, ...]:
    """Not a call to the store: any of the answers may come."""
    return answers


class Step(NamedTuple):
    process: str
    text: str


@dataclass
class Walk:
    """What was found: the number of states, of those with each kind of fault, and the shortest way to the first."""

    states: int = 0
    faults: dict[str, int] = field(default_factory=dict)
    traces: dict[str, list[Step]] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = [
            f"{self.states} states; " + (", ".join(f"{kind}: {n}" for kind, n in self.faults.items()) or "no fault")
        ]
        for kind, steps in self.traces.items():
            lines += [f"  {kind}:", *(f"    {step.process:<10} {step.text}" for step in steps)]
        return "\n".join(lines)


@dataclass
class _Node:
    """A place in a program: one history of answers that leads there, and the call that comes next (None: it is over)."""

    history: tuple[Any, ...]
    next_call: Call | None
    after: dict[Any, int] = field(default_factory=dict)


class _Machine:
    """The places of one program. Histories that lead to the same position and variables are the same place."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.nodes: list[_Node] = []
        self._known: dict[Hashable, int] = {}
        self.start = self._node(())

    def advance(self, number: int, answer: Any) -> int:
        node = self.nodes[number]
        if answer not in node.after:
            node.after[answer] = self._node((*node.history, answer))
        return node.after[answer]

    def _node(self, history: tuple[Any, ...]) -> int:
        process = self.program()
        try:
            upcoming: Call | None = next(process)
            for answer in history:
                upcoming = process.send(answer)
        except StopIteration:
            upcoming = None
        place = (upcoming and upcoming[:2], _place(process))
        if place not in self._known:
            self._known[place] = len(self.nodes)
            self.nodes.append(_Node(history, upcoming))
        return self._known[place]


def _place(process: Any) -> Hashable:
    frames = []
    while isinstance(process, GeneratorType) and process.gi_frame is not None:
        frames.append((process.gi_frame.f_lasti, _frozen(process.gi_frame.f_locals)))
        process = process.gi_yieldfrom
    return tuple(frames)


def _frozen(value: Any) -> Hashable:
    if isinstance(value, dict):
        return tuple((name, _frozen(one)) for name, one in value.items())
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def walk(
    start: Items, programs: dict[str, Program], faults_of: Callable[[Items], Iterable[str]], until: str | None = None
) -> Walk:
    """Visits all states, nearest first; with `until`, no more once that fault was found."""
    names, machines = list(programs), [_Machine(program) for program in programs.values()]
    worlds: dict[World, int] = {}
    contents: list[World] = []
    verdicts: list[tuple[str, ...]] = []
    moves: dict[tuple[int, Hashable], list[tuple[Any, int]]] = {}

    def number(world: World) -> int:
        if world not in worlds:
            worlds[world] = len(contents)
            contents.append(world)
            verdicts.append(tuple(dict.fromkeys(faults_of(dict(world)))))
        return worlds[world]

    def outcomes(world: int, upcoming: Call) -> list[tuple[Any, int]]:
        known = (world, upcoming[:2])
        if known not in moves:
            items = dict(contents[world])
            answer = upcoming.act(items, *upcoming.args)
            after = number(frozenset(items.items()))
            moves[known] = [(one, after) for one in (answer if upcoming.name == "choose" else [answer])]
        return moves[known]

    first = (number(frozenset(start.items())), *(machine.start for machine in machines))
    came_from: dict[tuple[int, ...], tuple[tuple[int, ...], int] | None] = {first: None}
    found = Walk()
    frontier = [first]
    while frontier:
        following = []
        for state in frontier:
            for kind in verdicts[state[0]]:
                found.faults[kind] = found.faults.get(kind, 0) + 1
                if kind not in found.traces:
                    found.traces[kind] = _trace(state, came_from, names, machines)
            for index, machine in enumerate(machines, 1):
                upcoming = machine.nodes[state[index]].next_call
                if upcoming is None:
                    continue
                for answer, world in outcomes(state[0], upcoming):
                    after = (world, *state[1:index], machine.advance(state[index], answer), *state[index + 1 :])
                    if after not in came_from:
                        came_from[after] = state, index
                        following.append(after)
        frontier = [] if until in found.faults else following
    found.states = len(came_from)
    return found


def _trace(
    state: tuple[int, ...],
    came_from: dict[tuple[int, ...], tuple[tuple[int, ...], int] | None],
    names: Sequence[str],
    machines: Sequence[_Machine],
) -> list[Step]:
    steps = []
    while (step := came_from[state]) is not None:
        before, index = step
        machine = machines[index - 1]
        upcoming = machine.nodes[before[index]].next_call
        answers = [answer for answer, node in machine.nodes[before[index]].after.items() if node == state[index]]
        said = f" -> {_text(answers[0])}" if answers and answers[0] not in (None, True) else ""
        steps.append(Step(names[index - 1], f"{upcoming}{said}"))
        state = before
    return steps[::-1]


def _text(value: Any) -> str:
    if isinstance(value, frozenset):
        return "{" + " ".join(sorted(map(_text, value))) + "}"
    if isinstance(value, tuple):
        return "/".join(map(_text, value)) or "nothing"
    return str(value)

"""Runs real code over one store in memory under every schedule.

Each process is a thread; only one runs at a time, and it stops before every call to the store. Who goes on there is a
decision, and so is whether a lease counts as expired. `explore` tries all decisions and leaves a run when it comes to a
state that was seen before: the same content, and the same calls and answers in every process. `sample` draws decisions.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from faults.memory_store import MemoryStore

from cluster.store.base import Capabilities
from tlgan.errors import TlganError

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)
Program = Callable[["OwnView"], None]
Option = tuple[str, int]


class AbandonedRun(BaseException):
    """Ends the threads of a run that nobody needs any more."""


class OwnView:
    """The store as one process sees it: every call waits for its turn."""

    def __init__(self, run: Run, me: str) -> None:
        self._run, self._me = run, me
        self.url = run.store.url

    @property
    def capabilities(self) -> Capabilities:
        return self._run.store.capabilities

    def put_if_absent(self, key: str, data: bytes) -> bool:
        if self.capabilities.create_only:
            return bool(self._call("put_if_absent", key, data))
        if self._call("head", key) is not None:
            return False
        self._call("put", key, data)
        return True

    def list(self, prefix: str = "") -> Iterator[Any]:
        return iter(self._call("list", prefix))

    def folders(self, prefix: str) -> Iterator[str]:
        return iter(self._call("folders", prefix))

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return lambda *args, **kwargs: self._call(name, *args, **kwargs)

    def choose(self, count: int) -> int:
        return self._run.wait_for_turn(self._me, count)

    def _call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        self._run.wait_for_turn(self._me, 1)
        return self._run.carry_out(self._me, name, args, kwargs)


@dataclass
class Run:
    """One run. `decide(options, state)` gives the index of an option, or None to leave; `watch` sees every change."""

    store: MemoryStore
    programs: dict[str, Program]
    decide: Callable[[list[Option], int], int | None]
    watch: Callable[[str, str, str], None]
    steps: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._asked: dict[str, int] = {}
        self._answers: dict[str, int] = {}
        self._go = {me: threading.Semaphore(0) for me in self.programs}
        self._stopped = threading.Semaphore(0)
        self._history = dict.fromkeys(self.programs, 0)
        self._abandoned = False
        self._errors: list[BaseException] = []

    def to_the_end(self) -> None:
        """Until all processes are done, or `decide` leaves. Raises what a process raised that is no `TlganError`."""
        threads = [threading.Thread(target=self._process, args=(me,), name=me, daemon=True) for me in self.programs]
        for thread in threads:
            thread.start()
            self._stopped.acquire()
        while self._asked:
            options = [(me, answer) for me in self.programs if me in self._asked for answer in range(self._asked[me])]
            decision = self.decide(options, self._state())
            if decision is None:
                self._abandoned = True
                for me in list(self._asked):
                    self._let(me, 0)
                break
            self._let(*options[decision])
        for thread in threads:
            thread.join()
        if self._errors:
            raise self._errors[0]

    def wait_for_turn(self, me: str, count: int) -> int:
        """Any of `count` answers, when it is `me`'s turn."""
        if not self._abandoned:
            self._asked[me] = count
            self._stopped.release()
            self._go[me].acquire()
        if self._abandoned:
            raise AbandonedRun
        if count > 1:
            self._remember(me, self._answers[me])
            self.steps.append(f"{me}: choice {self._answers[me]}")
        return self._answers[me]

    def carry_out(self, me: str, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self.steps.append(f"{me}: {name} {args[0]}")
        try:
            answer = getattr(self.store, name)(*args, **kwargs)
            if name in ("list", "folders"):
                answer = list(answer)
        except TlganError as error:
            self._remember(me, (name, args, str(error)))
            raise
        self._remember(me, (name, args, str(answer)))
        self.watch(me, name, args[0])
        return answer

    def _let(self, me: str, answer: int) -> None:
        del self._asked[me]
        self._answers[me] = answer
        self._go[me].release()
        self._stopped.acquire()

    def _process(self, me: str) -> None:
        try:
            with contextlib.suppress(AbandonedRun, TlganError):
                self.programs[me](OwnView(self, me))
        except BaseException as error:
            self._errors.append(error)
        finally:
            self._stopped.release()

    def _remember(self, me: str, what: Any) -> None:
        self._history[me] = hash((self._history[me], str(what)))

    def _state(self) -> int:
        content = frozenset((key, data, modified) for key, (data, modified) in self.store.items.items())
        return hash((content, tuple(self._history.items())))


class Names:
    """Stands in for `uuid4` and `now_utc`: each process counts for itself, so that a run can be repeated."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}

    def uuid4(self) -> Any:
        import uuid

        return uuid.UUID(bytes=hashlib.md5(f"{threading.current_thread().name} {self._next()}".encode()).digest())

    def now_utc(self) -> str:
        place = int(hashlib.md5(threading.current_thread().name.encode()).hexdigest()[:5], 16) % 600_000
        return f"2030-01-01T12:00:00.{300_000 + place + self._next():06d}Z"

    def _next(self) -> int:
        me = threading.current_thread().name
        self.counts[me] = self.counts.get(me, 0) + 1
        return self.counts[me]


@dataclass
class Explored:
    runs: int = 0
    states: int = 0


def explore(start: Callable[[Callable[..., int | None]], Run], preemptions: int | None = None) -> Explored:
    """All schedules, or with `preemptions` those that take a process off at most so often while it could go on."""
    seen: set[Any] = set()
    todo: list[tuple[int, ...]] = [()]
    found = Explored()
    while todo:
        prefix = todo.pop()
        taken: list[int] = []
        cost, current = 0, None

        def decide(
            options: list[Option], state: int, prefix: tuple[int, ...] = prefix, taken: list[int] = taken
        ) -> int | None:
            nonlocal cost, current
            staying = [index for index, (me, _) in enumerate(options) if me == current]
            if len(taken) < len(prefix):
                choice = prefix[len(taken)]
            else:
                place = state if preemptions is None else (state, cost, current)
                if place in seen:
                    return None
                seen.add(place)
                choice = staying[0] if staying else 0
                for other in range(len(options)):
                    more = bool(staying) and other not in staying
                    if other != choice and (preemptions is None or cost + more <= preemptions):
                        todo.append((*taken, other))
            cost += bool(staying) and choice not in staying
            current = options[choice][0]
            taken.append(choice)
            return choice

        start(decide).to_the_end()
        found.runs += 1
    found.states = len(seen)
    return found


def sample(start: Callable[[Callable[..., int | None]], Run], seeds: range) -> Explored:
    """One run for each seed; processes keep going for a while, as real ones do."""
    for seed in seeds:
        draw = random.Random(seed)
        stay, current = draw.choice([0.0, 0.5, 0.9]), [""]

        def decide(
            options: list[Option], state: int, draw: Any = draw, stay: float = stay, current: Any = current
        ) -> int:
            same = [index for index, (me, _) in enumerate(options) if me == current[0]]
            choice = draw.choice(same) if same and draw.random() < stay else draw.randrange(len(options))
            current[0] = options[choice][0]
            return choice

        start(decide).to_the_end()
    return Explored(runs=len(seeds))

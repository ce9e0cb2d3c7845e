"""The exceptions of tlgan. All are picklable, for they cross process borders (Ray workers, trials).

    TlganError                        1   a bug or an unexpected state
    +- SpecError (ValueError)         2   one or more mistakes in a spec, an override or an argument
    +- DataError (ValueError)         2   a dataset that can't be used as asked
    +- NotFound (LookupError)         3   an artifact, run, file or alias that does not exist
    +- Conflict                       4   somebody else changed the thing first
    +- BackendError                   5   the store or cluster can't be reached
    |  +- Refused                     5   it answers, and refuses the credentials or knows no such bucket
    +- Infeasible                     6   the cluster can never satisfy the request
    +- GateFailed                     7   a metric gate or a budget was missed
    +- IntegrityError                 8   bytes that do not match their digest
    +- RunFailed                    100   a run ended in failure
    |  +- Collapsed                 100   a guard ended it
    +- RunTimeout                   101   a run did not finish in time
    +- RunStopped                   103   a run was stopped by a person

The number is the exit code of the command line.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Problem:
    """One mistake and where it stands. `path` is the dotted path inside the spec; `line`/`column` count from 1."""

    message: str
    path: str = ""
    file: str | None = None
    line: int | None = None
    column: int | None = None
    hint: str | None = None

    def __str__(self) -> str:
        place = ":".join(str(p) for p in (self.file, self.line, self.column) if p is not None)
        head = f"{place}: " if place else ""
        where = f"{self.path}: " if self.path else ""
        tail = f" ({self.hint})" if self.hint else ""
        return f"{head}{where}{self.message}{tail}"


class TlganError(Exception):
    """Base of all errors tlgan raises on purpose. `hint` says what to do about it."""

    code = "internal"
    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.args, self.__dict__)

    def to_json(self) -> dict[str, Any]:
        """The object printed as `{"error": ...}` under `--json`."""
        return {
            "code": self.code,
            "message": self.message,
            "file": None,
            "line": None,
            "column": None,
            "hint": self.hint,
        }


def _rebuild(cls: type[TlganError], args: tuple[Any, ...], state: dict[str, Any]) -> TlganError:
    error = cls.__new__(cls)
    error.args = args
    error.__dict__.update(state)
    return error


class SpecError(TlganError, ValueError):
    """Mistakes a person can mend. Carries every problem found, not only the first."""

    code = "invalid_spec"
    exit_code = 2

    def __init__(self, problems: str | Problem | Iterable[Problem], *, hint: str | None = None) -> None:
        if isinstance(problems, str):
            problems = [Problem(problems, hint=hint)]
        elif isinstance(problems, Problem):
            problems = [problems]
        self.problems = list(problems)
        super().__init__("\n".join(str(p) for p in self.problems), hint=hint)

    def to_json(self) -> dict[str, Any]:
        first = self.problems[0]
        fields = {"file": first.file, "line": first.line, "column": first.column, "hint": first.hint or self.hint}
        return {"code": self.code, "message": self.message, **fields, "problems": [asdict(p) for p in self.problems]}


class DataError(TlganError, ValueError):
    code = "invalid_data"
    exit_code = 2


class NotFound(TlganError, LookupError):
    code = "not_found"
    exit_code = 3


class Conflict(TlganError):
    code = "conflict"
    exit_code = 4


class BackendError(TlganError):
    code = "backend"
    exit_code = 5


class Refused(BackendError):
    """Asking again changes nothing, other than with a store that is merely away."""


class Infeasible(TlganError):
    code = "infeasible"
    exit_code = 6


class GateFailed(TlganError):
    code = "gate_failed"
    exit_code = 7


class IntegrityError(TlganError):
    code = "integrity"
    exit_code = 8


class RunFailed(TlganError):
    code = "run_failed"
    exit_code = 100


class Collapsed(RunFailed):
    code = "collapsed"


class RunTimeout(TlganError):
    code = "run_timeout"
    exit_code = 101


class RunStopped(TlganError):
    code = "run_stopped"
    exit_code = 103


def did_you_mean(word: str, choices: Iterable[str]) -> str | None:
    """`did you mean "x"?` for the choice nearest to `word`, or None when nothing is near."""
    near = difflib.get_close_matches(word, list(choices), n=1, cutoff=0.6)
    return f'did you mean "{near[0]}"?' if near else None

"""What every kind of target can do, and what it is given."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import Field, field_validator

from cluster.room import Node
from cluster.sections import ResourcesSpec
from tlgan.errors import SpecError
from tlgan.recipe import NonNegativeFloat, Section

SECRET_NAMES = ("SECRET", "TOKEN", "PASSW", "CREDENTIAL", "ACCESS_KEY", "API_KEY")


class Price(Section):
    """What an hour costs. Without it no cost is shown."""

    cpu_hour: NonNegativeFloat = 0.0
    gpu_hour: NonNegativeFloat = 0.0
    currency: str = Field("USD", min_length=1, max_length=8)


@dataclass(frozen=True)
class Ticket:
    """One submission of a run, as a target starts it. It holds names and places, never a key or a token.

    `demands`: resources of every part that runs on Ray; `driver`: what the driver itself computes with.
    """

    run: str
    submission: str
    kind: str
    store: str
    endpoint: str | None
    folder: str
    demands: list[ResourcesSpec] = field(default_factory=list)
    driver: ResourcesSpec | None = None
    module: str = "jobs.launch"

    @property
    def arguments(self) -> list[str]:
        return ["-P", "-m", self.module, self.store, self.run, self.submission]

    def variables(self) -> dict[str, str]:
        """What the driver must know of the store besides its URL."""
        return {"TLGAN_S3_ENDPOINT": self.endpoint} if self.endpoint else {}


Handle = dict[str, Any]
"""How a target finds again what it started; kept in the run's record."""


@dataclass(frozen=True)
class Progress:
    """What a target knows of a driver: `state`, and the target's own words. `unknown`: it can't tell from here."""

    state: Literal["pending", "running", "ended", "unknown"]
    message: str = ""


class Target(Section):
    """Settings of one target, and what can be done with it. The methods raise `BackendError` when it can't be reached."""

    name: str
    kind: str
    env: dict[str, str] = Field({}, description="plain variables of the driver and its workers")
    price: Price | None = None

    @field_validator("env")
    @classmethod
    def _no_secrets(cls, env: dict[str, str]) -> dict[str, str]:
        for name in env:
            if any(word in name.upper() for word in SECRET_NAMES):
                raise ValueError(f"{name} looks like a secret: it would be readable by all who can see the job")
        return env

    @property
    def can_probe(self) -> bool:
        """Whether a few steps can be tried on it before the run."""
        return False

    def nodes(self) -> list[Node] | None:
        """The nodes there are; None when that is not known before the run."""
        return None

    def where(self) -> str:
        """As in "the run asks for 4 CPUs, <where> has 2"."""
        return f"target {self.name}"

    def refuse(self, ticket: Ticket) -> None:
        """Raises `SpecError` for what can't work on this target."""

    def request(self, ticket: Ticket) -> dict[str, Any]:
        """The exact request that `start` sends."""
        raise NotImplementedError

    def rendered(self, ticket: Ticket) -> str:
        """The request as a file that a person could send."""
        raise SpecError(f"a target of kind {self.kind} has nothing to render", hint="`tlgan plan` shows its request")

    def handle(self, ticket: Ticket) -> Handle:
        raise NotImplementedError

    def start(self, ticket: Ticket) -> Handle:
        raise NotImplementedError

    def progress(self, handle: Handle) -> Progress:
        raise NotImplementedError

    def end(self, handle: Handle) -> None:
        """Ends the driver and its workers now, without waiting for a checkpoint."""
        raise NotImplementedError

    def findings(self) -> list[tuple[str, str]]:
        """Rows of (what, how it is) for `target check`. Raises what is wrong."""
        raise NotImplementedError


def refuse_local_store(ticket: Ticket, target: Target) -> None:
    if ticket.store.startswith("file:"):
        raise SpecError(
            f"target {target.name} can't see the store {ticket.store}: it is a directory of this machine",
            hint="use a bucket: --store s3://bucket/prefix",
        )

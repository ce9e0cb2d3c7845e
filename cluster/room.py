"""Whether what a run asks for can ever be given by a set of nodes. An impossible request is refused here, before anything hangs."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence

from pydantic import Field, TypeAdapter

from cluster.sections import ResourcesSpec
from tlgan.errors import Infeasible, SpecError
from tlgan.recipe import Section

Node = dict[str, float]
"""Resource -> amount of one node: `CPU`, `GPU`."""
GROWS = "TLGAN_CLUSTER_GROWS"
"""Of a driver's environment: the groups of its target, as JSON."""


class NodeGroup(Section):
    """Nodes of one kind that an autoscaler starts when something waits for them."""

    nodes: int = Field(..., ge=1, le=100_000, description="at most so many at a time")
    cpus: float = Field(..., gt=0, le=100_000, description="of each")
    gpus: float = Field(0, ge=0, le=1000, description="of each")

    @property
    def node(self) -> Node:
        return {"CPU": self.cpus, "GPU": self.gpus}


GROUPS = TypeAdapter(list[NodeGroup])


def groups_here() -> list[NodeGroup]:
    """What the cluster that this process drives a run on may grow by; `TLGAN_CLUSTER_GROWS`."""
    return GROUPS.validate_json(os.environ.get(GROWS, "[]"))


def grown(nodes: Sequence[Node], groups: Sequence[NodeGroup]) -> list[Node]:
    """The nodes of a cluster that has grown as far as it can: those of a group that are there already count as that group's."""
    kinds = [group.node for group in groups]
    own = [node for node in nodes if {what: node.get(what, 0.0) for what in ("CPU", "GPU")} not in kinds]
    return own + [group.node for group in groups for _ in range(group.nodes)]


def check_fits(resources: ResourcesSpec, nodes: Sequence[Node], where: str) -> None:
    """Raises `Infeasible` when empty `nodes` could not hold the workers, `SpecError` for a share of a GPU that can't be.

    `where` names the nodes in the message: "this machine", "the cluster".
    """
    workers = max(resources.least, 1)
    worker = {"CPU": float(resources.cpus_per_worker), "GPU": float(resources.gpus_per_worker)}
    gpus = resources.gpus_per_worker
    if gpus % 1 and (gpus > 1 or workers > 1):
        raise SpecError(
            f"resources.gpus_per_worker: expected a whole number, received {gpus:g}",
            hint="only a single worker, as of a sweep's trial, can share a GPU",
        )
    for what, amount in worker.items():
        have = sum(node.get(what, 0.0) for node in nodes)
        if amount * workers > have:
            raise Infeasible(
                f"the run asks for {amount * workers:g} {what}s ({workers} workers), {where} has {have:g}",
                hint=f"lower resources.workers or resources.{what.lower()}s_per_worker, or run on a larger cluster",
            )
    if (places := sum(room(node, worker) for node in nodes)) < workers:
        each = " and ".join(f"{amount:g} {what}s" for what, amount in worker.items() if amount)
        raise Infeasible(
            f"the run asks for {workers} workers with {each} each, {where} has room for {places}: "
            "a worker must fit on one node",
            hint="lower what a worker takes, or run on a cluster with larger nodes",
        )


def room(node: Node, worker: Node) -> int:
    """How many such workers fit on an empty node."""
    fits = [math.floor(node.get(what, 0.0) / amount + 1e-9) for what, amount in worker.items() if amount]
    return min(fits)

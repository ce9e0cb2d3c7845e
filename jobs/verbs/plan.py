"""`tlgan plan`: everything about a job before it is started."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jobs.options import OnOption, SetOption
from jobs.output import Context, to_json

if TYPE_CHECKING:
    from cluster.submission import Prepared
    from cluster.targets.base import Target
    from jobs.planning import Estimate, StagePlan

PROBE = "Train 20 steps on the target to estimate time and memory; default: for a target of kind local."


def plan(
    ctx: Context,
    spec: Annotated[Path, typer.Argument(help="Spec file.")],
    on: OnOption = None,
    set: SetOption = None,
    probe: Annotated[bool | None, typer.Option("--probe/--no-probe", help=PROBE)] = None,
) -> None:
    """Show what a spec would do: pinned inputs, stages that are done already, room, time, memory, cost, the exact request.

    Starts nothing. Exit code 6, in seconds, when the target can never hold it. The run's record will say how far off the
    estimate was.
    """
    from cluster.specfile import load_spec

    job = load_spec(spec, set or [])
    from cluster.submission import prepare
    from cluster.targets import open_target

    artifacts = ctx.open_store()
    target = open_target(on)
    prepared = prepare(job, artifacts, target)
    from jobs.estimates import remember
    from jobs.planning import NoRoomCheck, estimate, stages_of
    from jobs.session import Session

    local = target.kind == "local"
    with Session(artifacts, only_plans=True) as session:
        if not local:
            session.ray = NoRoomCheck()  # type: ignore[assignment]
        stages = stages_of(job, session)
        wanted = target.can_probe and (local if probe is None else probe)
        found = [one for stage in stages if wanted and (one := estimate(stage, session, target, prepared.ticket))]
        if found:
            own = [stage.run for stage in stages if len(stages) == 1 and stage.run]
            seconds = sum(one.seconds for one in found)
            remember(session.runs, [prepared.run_id, *own], seconds, [vars(one) for one in found])
    told = _told(prepared, target, stages, found, asked=wanted)
    ctx.emit(told, lambda: "\n".join(_lines(told, prepared, target, found)))


def _told(
    prepared: Prepared, target: Target, stages: list[StagePlan], found: list[Estimate], *, asked: bool
) -> dict[str, Any]:
    nodes = target.nodes()
    rows = [
        {"name": s.name, "kind": s.kind, "state": s.state, "run": s.run, "outputs": s.outputs, "why": s.why}
        for s in stages
    ]
    inputs = {**prepared.inputs}
    for stage in stages:
        if stage.plan is not None:
            prefix = f"{stage.name}." if len(stages) > 1 else ""
            inputs |= {f"{prefix}{role}": entry for role, entry in stage.plan.inputs.items()}
    missing = [s.name for s in stages if s.state == "open"] if asked else []
    return {
        "run": prepared.run_id,
        "kind": prepared.job.kind,
        "target": {"name": target.name, "kind": target.kind},
        "inputs": inputs,
        "stages": rows,
        "room": None if nodes is None else {"nodes": len(nodes), "CPU": _sum(nodes, "CPU"), "GPU": _sum(nodes, "GPU")},
        "estimate": [vars(one) for one in found] or None,
        "not_estimated": missing,
        "cost": _cost(target, found),
        "request": target.request(prepared.ticket),
    }


def _sum(nodes: list[dict[str, float]], what: str) -> float:
    return sum(node.get(what, 0.0) for node in nodes)


def _cost(target: Target, found: list[Estimate]) -> dict[str, Any] | None:
    price = target.price
    if price is None or not found:
        return None
    return {"amount": sum(one.cost(price) for one in found), "currency": price.currency}


def _lines(told: dict[str, Any], prepared: Prepared, target: Target, found: list[Estimate]) -> list[str]:
    lines = [f"{prepared.run_id}  {prepared.job.kind} on {target.name} ({target.kind})"]
    lines += [f"input     {role}: {entry['ref']}  {entry['digest'][:16]}" for role, entry in told["inputs"].items()]
    words = {"done": "unchanged, not run again", "runs": "runs", "open": "open"}
    for row in told["stages"]:
        more = " ".join(row["outputs"]) or row["why"]
        lines.append(f"stage     {row['name']}: {row['kind']} {words[row['state']]}{f'  ({more})' if more else ''}")
    room = told["room"]
    lines.append(
        f"room      it fits: {target.where()} has {room['CPU']:g} CPUs and {room['GPU']:g} GPUs"
        if room
        else "room      not known before the run: the target makes a cluster of its own"
    )
    lines += [line for one in found for line in _estimated(one)]
    if not found and target.can_probe and any(row["state"] == "runs" for row in told["stages"]):
        lines.append("time      not estimated (--probe tries 20 steps on the target)")
    lines += [f"time      of stage {name} is known when its inputs are" for name in told["not_estimated"]]
    if told["cost"]:
        lines.append(f"cost      {told['cost']['amount']:.4g} {told['cost']['currency']}")
    return [*lines, f"request   {to_json(told['request'])}"]


def _estimated(one: Estimate) -> list[str]:
    from datetime import timedelta

    from jobs.verbs.words import size_text, span_text

    trials = f", {one.trials} trials at most" if one.trials > 1 else ""
    measured = f", {one.measurements} measurements of {one.measure_seconds:.1f} s" if one.measurements else ""
    parts = f"{one.steps} steps of {one.step_seconds:.3f} s{measured}, {one.begin_seconds:.0f} s to begin{trials}"
    gpu = f" and {size_text(one.gpu_memory_bytes)} of GPU memory" if one.gpu_memory_bytes else ""
    return [
        f"time      {one.stage}: about {span_text(timedelta(seconds=max(1, round(one.seconds))))}  ({parts}; from 20 steps)",
        f"memory    {one.stage}: {size_text(one.memory_bytes)} a worker{gpu}",
    ]

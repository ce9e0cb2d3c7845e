"""Verbs that take away: collecting what nothing needs, deleting versions by hand, bringing them back."""

from __future__ import annotations

import os
import re
import socket
import sys
from collections.abc import Callable
from contextlib import nullcontext
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jobs.output import Context, counted
from jobs.verbs.words import parse_span
from tlgan.errors import Conflict, NotFound, SpecError, TlganError, did_you_mean

if TYPE_CHECKING:
    from cluster.checkpoints import Leftover
    from cluster.store import ArtifactStore
    from cluster.store.condemned import Condemned
    from cluster.store.gc import Collector, Plan
    from cluster.store.retention import Best, Policy
    from tlgan.manifest import Manifest

_RULES = "which versions go"
_HOW = "how"


def _option(flag: str, metavar: str, text: str, panel: str) -> Any:
    return typer.Option(flag, metavar=metavar, help=text, rich_help_panel=panel, show_default=False)


def gc(
    ctx: Context,
    delete: Annotated[bool, typer.Option("--delete", help="Carry it out; else it is only shown.")] = False,
    keep_last: Annotated[
        int | None,
        typer.Option("--keep-last", metavar="N", min=0, help="All but the newest N.", rich_help_panel=_RULES),
    ] = None,
    older_than: Annotated[
        str | None, _option("--older-than", "AGE", "Only those of this age: 30d, 12h, 2w.", _RULES)
    ] = None,
    keep_best: Annotated[
        str | None,
        _option("--keep-best", "METRIC[:N]", "Not the N best of each protocol, such as kid:3; other:1:max.", _RULES),
    ] = None,
    name: Annotated[
        list[str] | None,
        _option("--name", "PATTERN", "Only of these artifacts, such as 'digits*'. Repeatable.", _RULES),
    ] = None,
    checkpoints_older_than: Annotated[
        str | None,
        _option(
            "--checkpoints-older-than", "AGE", "Also checkpoints and drafts of runs silent for so long: 14d.", _HOW
        ),
    ] = None,
    restorable: Annotated[
        str | None, _option("--restorable", "AGE", "How long what goes can be restored; 7d, 0 = not at all.", _HOW)
    ] = None,
    grace: Annotated[
        str | None, _option("--grace", "AGE", "Spare files of no version that are younger than this; 1h.", _HOW)
    ] = None,
    forget: Annotated[
        list[str] | None,
        _option("--forget", "ID", "Remove the list of a collection that was killed for good. Repeatable.", _HOW),
    ] = None,
) -> None:
    """Delete files that no version needs and, by the rules given, old versions. Only shows what would go without --delete.

    A version goes when it fits every rule; never one that an alias points at, that a push needs, or a run that may go on. It
    can be restored for a week; only then are its files deleted. The manifests of all ancestors of what stays are kept.
    """
    policy = _policy(keep_last, older_than, keep_best, name, restorable, grace)
    silent = (
        parse_span(checkpoints_older_than, "--checkpoints-older-than") if checkpoints_older_than is not None else None
    )
    store = ctx.open_store()
    names = store.names()  # refuses what is no store
    if forget:
        _forget(ctx, store, forget)
    else:
        _collect(ctx, store, names, policy, silent, delete)


def _collect(
    ctx: Context, store: ArtifactStore, names: list[str], policy: Policy, silent: timedelta | None, delete: bool
) -> None:
    """Shows what goes and, with `delete`, once a person agreed, carries it out. `silent`: of runs whose leftovers go, too."""
    from cluster.checkpoints import old_checkpoints
    from cluster.holding import held_by_runs
    from cluster.store.condemned import condemned_lists
    from cluster.store.gc import Collector
    from jobs.verbs.collect_page import plan_page, plan_row

    if not any(policy.covers(one) for one in names):
        ctx.say(
            f"no artifact in {store.url} fits {' or '.join(policy.names)}" if names else f"{store.url} has no artifacts"
        )
    unfinished = condemned_lists(store.store)
    collector = Collector(store.store, policy, store.threads, lambda: held_by_runs(store.store))
    plan = collector.plan()
    runs = [] if silent is None else old_checkpoints(store.store, silent)
    row = plan_row(store.url, policy, plan, unfinished, runs)
    if not delete:
        ctx.emit(row, lambda: plan_page(row, ctx.verbose))
        ctx.say("nothing was deleted; --delete carries it out" if plan.keys or runs else "there is nothing to delete")
        return
    if (plan.keys or runs) and _asks(ctx):
        ctx.say(plan_page(row, ctx.verbose))
        if not ctx.confirm(f"Delete this from {store.url}?"):
            ctx.say("nothing was deleted")
            return
    _carry_out(ctx, collector, plan, runs, row)


def _carry_out(ctx: Context, collector: Collector, plan: Plan, runs: list[Leftover], row: dict[str, Any]) -> None:
    """Deletes what was shown, with a bar, and says what went."""
    from cluster.checkpoints import remove_old
    from jobs.verbs.collect_page import report_page, report_row
    from jobs.verbs.transfers import byte_bar, store_warnings

    size = plan.bytes + sum(one.bytes for one in runs)
    with byte_bar(ctx, "deleting", size) if size else nullcontext(lambda size: None) as advance, store_warnings(ctx):
        removed = {one.run: remove_old(collector.store, one) for one in runs}
        advance(sum(removed.values()))
        done = collector.run(plan, advance)
    row = report_row(row, done, removed)
    ctx.emit(row, lambda: report_page(row, done))


def rm(
    ctx: Context,
    refs: Annotated[list[str], typer.Argument(metavar="REF...", help="name@digest of versions.", show_default=False)],
) -> None:
    """Delete versions that no alias points at. `artifact restore` brings them back until a collection takes their files."""
    from cluster.store.layout import Version
    from cluster.store.trash import remove

    store = ctx.open_store()
    found = {manifest.digest: manifest for manifest in map(store.resolve, refs)}

    def work(manifest: Manifest) -> dict[str, Any]:
        remove(store.store, Version.of(manifest))
        return {"ref": manifest.ref, "digest": manifest.digest, "bytes": manifest.size}

    _each(ctx, list(found.values()), work, lambda row: f"{row['ref']}  deleted; tlgan artifact restore {row['ref']}")


def restore(
    ctx: Context,
    refs: Annotated[
        list[str], typer.Argument(metavar="REF...", help="name@digest of deleted versions.", show_default=False)
    ],
) -> None:
    """Bring deleted versions back, whole. `artifact ls --deleted` lists them. Aliases stay where they are."""
    store = ctx.open_store()
    store.names()
    _each(ctx, list(dict.fromkeys(refs)), lambda ref: _restore(store, ref), lambda row: f"{row['ref']}  {row['state']}")


def _restore(store: ArtifactStore, text: str) -> dict[str, Any]:
    from cluster.store.catalog import find_deleted
    from cluster.store.trash import restore as bring_back
    from tlgan.naming import ArtifactRef

    ref = ArtifactRef.parse(text)
    if ref.alias is not None:
        hint = f"tlgan artifact ls {ref.name} --deleted lists them"
        raise SpecError(f"{text}: a deleted version is named by its digest, {ref.name}@<digest>", hint=hint)
    try:
        manifest, state = bring_back(store.store, find_deleted(store.store, ref), store.threads), "restored"
    except NotFound as missing:
        try:
            manifest, state = store.resolve(ref), "was not deleted"
        except NotFound:
            raise missing from None
    return {"ref": manifest.ref, "digest": manifest.digest, "bytes": manifest.size, "state": state}


def _each(ctx: Context, items: list[Any], work: Callable[[Any], Any], line: Callable[[Any], str]) -> None:
    """Does all that can be done and shows it; then raises the first error, with the number of further ones."""
    rows, errors = [], []
    for item in items:
        try:
            rows.append(work(item))
        except TlganError as error:
            errors.append(error)
    ctx.emit(rows, "\n".join(map(line, rows)))
    if errors:
        for further in errors[1:]:
            ctx.say(f"error: {further.message}")
        raise errors[0]


def _asks(ctx: Context) -> bool:
    """A script that says --delete means it; a person is shown what would go."""
    return not ctx.yes and sys.stdin.isatty() and sys.stderr.isatty()


def _policy(
    keep_last: int | None,
    older_than: str | None,
    keep_best: str | None,
    names: list[str] | None,
    restorable: str | None,
    grace: str | None,
) -> Policy:
    from cluster.store.retention import GRACE, RESTORABLE, Policy

    def span(text: str | None, option: str, default: timedelta) -> timedelta:
        return default if text is None else parse_span(text, option)

    policy = Policy(
        keep_last,
        None if older_than is None else parse_span(older_than, "--older-than"),
        None if keep_best is None else _best(keep_best),
        tuple(names or ["*"]),
        span(restorable, "--restorable", RESTORABLE),
        span(grace, "--grace", GRACE),
    )
    if (keep_best or names) and not policy.deletes_versions:
        given = "--keep-best" if keep_best else "--name"
        hint = "add --keep-last N or --older-than AGE: they say which versions go"
        raise SpecError(f"{given} only spares versions; no rule deletes any", hint=hint)
    return policy


def _best(text: str) -> Best:
    from cluster.store.retention import Best
    from tlgan.registry import METRICS

    match = re.fullmatch(r"([A-Za-z0-9_.-]+?)(?::([1-9]\d{0,5}))?(?::(min|max))?", text)
    if match is None:
        hint = "write METRIC, METRIC:N or METRIC:N:max, as in kid:3"
        raise SpecError(f"--keep-best {text!r} is no metric with a number", hint=hint)
    metric, count, mode = match[1], int(match[2] or 1), match[3]
    if mode is None:
        if metric not in METRICS:
            near = did_you_mean(metric, METRICS)
            hint = near or f"say whether low or high values are good: --keep-best {metric}:{count}:max"
            raise SpecError(f"--keep-best: unknown metric {metric!r}; known: {', '.join(METRICS)}", hint=hint)
        mode = METRICS.facts(metric)["mode"]
    return Best(metric, count, mode)


def _forget(ctx: Context, store: ArtifactStore, ids: list[str]) -> None:
    """Refuses while the holder is seen to live; asks a person, for on another machine nobody can see it."""
    from cluster.store.condemned import condemned_lists, forget

    known = {one.id: one for one in condemned_lists(store.store)}
    for gc_id in ids:
        if gc_id not in known:
            forget(store.store, gc_id)  # raises, with those that there are
        if _lives_here(known[gc_id]):
            hint = "wait until it has ended, or end it"
            raise Conflict(f"collection {gc_id} may still be running, as {known[gc_id].holder}", hint=hint)
    holders = ", ".join(known[gc_id].holder for gc_id in ids)
    question = f"If {holders} wakes up later, it deletes what was pushed meanwhile. Is it gone for good?"
    if _asks(ctx) and not ctx.confirm(question):
        ctx.say("nothing was forgotten")
        return
    for gc_id in ids:
        forget(store.store, gc_id)
    ctx.emit({"forgotten": ids}, f"forgot {counted(len(ids), 'collection')}: {', '.join(ids)}")


def _lives_here(condemned: Condemned) -> bool:
    host, _, pid = condemned.holder.rpartition(":")
    if host != socket.gethostname() or not pid.isdigit():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        return True
    return True

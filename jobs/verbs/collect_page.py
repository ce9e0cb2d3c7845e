"""A collection as text and as plain values: what goes, what stays and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from cluster.checkpoints import Leftover
from cluster.store.condemned import Condemned
from cluster.store.gc import RESTORABLE, Collected, Plan
from cluster.store.layout import Version
from cluster.store.retention import Policy
from jobs.output import counted, table
from jobs.verbs.words import age_text, size_text, span_text, time_text

Row = dict[str, Any]
SHOWN = 40


def plan_row(url: str, policy: Policy, plan: Plan, unfinished: list[Condemned], runs: Sequence[Leftover]) -> Row:
    """What `artifact gc --json` prints."""
    waiting = {
        why: {"count": len(infos), "bytes": sum(info.size for info in infos)} for why, infos in plan.waiting.items()
    }
    return {
        "store": url,
        "dry_run": True,
        "restorable_seconds": policy.restorable.total_seconds(),
        "versions": [_version(version) | {"bytes": plan.sizes[version.key]} for version in plan.versions],
        "tombstones": [_parsed(info.key).ref for info in plan.tombstones],
        "blobs": [{"key": info.key, "bytes": info.size} for info in plan.blobs],
        "bytes": plan.bytes,
        "kept": [_version(_parsed(key)) | {"reason": reason} for key, reason in plan.kept.items()],
        "live_versions": plan.live,
        "waiting": waiting,
        "unfinished": [
            {"id": one.id, "holder": one.holder, "started": one.started, "keys": len(one.keys)} for one in unfinished
        ],
        "runs": [
            {"run": one.run, "state": one.state, "silent_seconds": one.silent.total_seconds(), "bytes": one.bytes}
            for one in runs
        ],
        "deleted": None,
    }


def report_row(row: Row, done: Collected, runs: dict[str, int]) -> Row:
    """The same once it was carried out. `runs`: bytes of checkpoints that went, by run."""
    deleted = {
        "versions": done.versions,
        "tombstones": [_parsed(key).ref for key in done.tombstones],
        "blobs": len(done.blobs),
        "bytes": done.bytes,
        "spared": done.spared,
        "broken_leases": done.broken,
        "runs": runs,
    }
    return row | {"dry_run": False, "deleted": deleted}


def plan_page(row: Row, verbose: bool = False) -> str:
    """What would go and why the rest stays, for a person."""
    parts = []
    if row["versions"]:
        rows = [[v["ref"], time_text(v["created"]), size_text(v["bytes"])] for v in row["versions"]]
        parts.append("versions that go\n" + _listed(rows, ["version", "created (UTC)", "size"], verbose))
    if row["runs"]:
        rows = [
            [
                one["run"],
                one["state"] or "-",
                span_text(timedelta(seconds=one["silent_seconds"])),
                size_text(one["bytes"]),
            ]
            for one in row["runs"]
        ]
        parts.append("checkpoints that go\n" + _listed(rows, ["run", "state", "silent for", "size"], verbose))
    freed = f"files that go   {counted(len(row['blobs']), 'file')}, {size_text(row['bytes'])}"
    parts.append("\n".join([freed, *_later(row)]))
    if row["kept"]:
        rows = [[v["ref"], time_text(v["created"]), v["reason"]] for v in row["kept"]]
        parts.append("versions that stay\n" + _listed(rows, ["version", "created (UTC)", "why"], verbose))
    stay = [f"  {counted(row['live_versions'], 'version')} with all their files"]
    for why, files in row["waiting"].items():
        stay.append(f"  {counted(files['count'], 'file')}, {size_text(files['bytes'])}: {why}")
    parts.append("what stays\n" + "\n".join(stay))
    return "\n\n".join([*parts, *_unfinished(row)])


def report_page(row: Row, done: Collected) -> str:
    """What a collection did, for a person."""
    lines = [
        f"deleted {counted(len(done.blobs), 'file')}, {size_text(done.bytes)}",
        *(f"deleted {ref}; tlgan artifact restore {ref}" for ref in done.versions if row["restorable_seconds"]),
        *(f"deleted {ref}" for ref in done.versions if not row["restorable_seconds"]),
        *(
            [f"{counted(len(done.tombstones), 'version')} deleted before can't be restored any more"]
            if done.tombstones
            else []
        ),
        *([f"spared {counted(len(done.spared), 'thing')} that somebody needs by now"] if done.spared else []),
        *(f"deleted checkpoints of {run}, {size_text(size)}" for run, size in row["deleted"]["runs"].items() if size),
        *(f"broke the lease {lease} of a push that gave no sign of life" for lease in done.broken),
    ]
    return "\n\n".join(["\n".join(lines), *_unfinished(row)])


def _later(row: Row) -> list[str]:
    lines = []
    if row["versions"] and (seconds := row["restorable_seconds"]):
        size, span = size_text(row["waiting"].get(RESTORABLE, {"bytes": 0})["bytes"]), timedelta(seconds=seconds)
        lines.append(
            f"later           {size}, by a collection after {span_text(span)}: until then they can be restored"
        )
    if row["tombstones"]:
        lines.append(f"gone for good   {counted(len(row['tombstones']), 'version')} deleted before")
    return lines


def _unfinished(row: Row) -> list[str]:
    if not row["unfinished"]:
        return []
    rows = [
        [one["id"], one["holder"], age_text(one["started"]), counted(one["keys"], "key")] for one in row["unfinished"]
    ]
    text = "collections that have not ended (pushes go around what they list; --forget ID once one is dead for certain)"
    return [text + "\n" + _indent(table(rows, ["id", "by", "started", "lists"]))]


def _listed(rows: list[list[str]], head: list[str], verbose: bool) -> str:
    shown = rows if verbose else rows[:SHOWN]
    text = _indent(table(shown, head))
    if len(shown) == len(rows):
        return text
    names = Counter(row[0].partition("@")[0] for row in rows[len(shown) :])
    rest = ", ".join(f"{count} of {name}" for name, count in names.most_common(5))
    return f"{text}\n  and {len(rows) - len(shown)} more ({rest}); -v lists them"


def _indent(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())


def _version(version: Version) -> Row:
    return {"ref": version.ref, "name": version.name, "created": version.created}


def _parsed(key: str) -> Version:
    version = Version.parse("versions/" + key.removeprefix("deleted/").removeprefix("versions/"))
    assert version is not None, key
    return version

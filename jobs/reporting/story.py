"""The outcome in plain words, and the few numbers that sum it up."""

from __future__ import annotations

from typing import Any

from cluster.runs import RunRecord
from jobs.reporting.family import Family
from jobs.reporting.reader import Reader
from jobs.reporting.result import Result
from jobs.reporting.sweeps import board_of, winner_of
from jobs.reporting.training import TRAINING, History, history_of, is_abandoned, seconds_of
from jobs.reporting.words import listed, metric_name, metric_title, noun_of
from tlgan import shapes
from tlgan.naming import ArtifactRef
from tlgan.registry import TRANSFERS
from tlgan.report import HeadlineNumber, MetricRow
from tlgan.report.html import count, duration, number

HEADLINE_METRICS = ("kid", "fid", "accuracy", "f1")


def outcome_of(reader: Reader, family: Family, result: Result) -> str:
    """One to three sentences: what was made and how good it is; of a run that is not done, how far it got."""
    sentences = [] if family.subject.state == "succeeded" else [_progress(reader, family)]
    if result.manifest is not None:
        sentences.append(_made(result))
        if result.maker and result.maker.kind == "sweep":
            sentences.append(_search(reader, result.maker))
        sentences.append(_verdict(reader, family, result))
    if family.subject.kind == "generate" and "path" in family.subject.facts:
        sentences.append(f"{count(family.subject.spec.get('n', 64), 'image')} of it: {family.subject.facts['path']}.")
    told = " ".join(sentence for sentence in sentences if sentence)
    if told or family.subject.state != "succeeded":
        return told
    return "What this run made is no longer in the store."


def _made(result: Result) -> str:
    """`A generator of 32 px digits was fine-tuned from glyphs32 on 100 images; KID 0.0052 on 899 held-out digits.`"""
    assert result.manifest is not None
    recipe, spec = result.manifest.recipe or {}, result.target.spec if result.target else None
    if result.manifest.kind == "classifier":
        made = f"A classifier of {noun_of(spec)} was trained"
    else:
        size = recipe.get("model", {}).get("resolution")
        made = f"A generator of {f'{size if isinstance(size, int) else shapes.text(size)} px ' if size else ''}{noun_of(spec)} was "
        parent = next((p for p in result.manifest.parents if p.role == "init_from"), None)
        made += f"fine-tuned from {ArtifactRef.parse(parent.ref).name}" if parent else "trained from scratch"
    made += f" on {count(result.target.count, 'image')}" if result.target else ""
    main = next((row for row in map(result.row, HEADLINE_METRICS) if row), None)
    return f"{made}; {metric_name(main.name)} {_value(main.value)}{_against(result, main)}." if main else f"{made}."


def _against(result: Result, row: MetricRow) -> str:
    """` on 899 held-out digits`: the real images of a comparison."""
    if "samples_real" not in row.protocol:
        return " on a held-out tenth" if row.name in ("accuracy", "f1") else ""
    spec, real = result.reference.spec if result.reference else None, int(row.protocol["samples_real"])
    held_out = "held-out " if _is_held_out(result) else "real "
    return f" on {real:,} {held_out}{noun_of(spec, real)}"


def _is_held_out(result: Result) -> bool:
    """The reference is the test part of what the generator learned the other part of."""
    if not (result.target and result.reference):
        return False
    learned, held = result.target.spec, result.reference.spec
    same = (learned.source, learned.path, learned.artifact, learned.seed, learned.test_share) == (
        *(held.source, held.path, held.artifact, held.seed, held.test_share),
    )
    return same and (learned.split, held.split) == ("train", "test")


def _search(reader: Reader, sweep: RunRecord) -> str:
    """`The best of 6 trials kept 1 block of D frozen, with lr_g 0.0004 and lr_d 0.0006.`"""
    row = winner_of(reader, sweep)
    if row is None:
        return ""
    transfer = {**((sweep.recipe or {}).get("transfer") or {})}
    transfer |= row["params"].get("transfer", {})  # a search may choose the section as a whole
    transfer |= {path.partition(".")[2]: v for path, v in row["params"].items() if path.startswith("transfer.")}
    sections = {path: path.partition(".")[0] for path in row["params"]}
    words = [_freezing(transfer)] if "transfer" in sections.values() else []
    rest = [f"{_called(p)} {_value(v)}" for p, v in row["params"].items() if sections[p] != "transfer"]
    if rest:
        words.append(f"{'with' if words else 'had'} {listed(rest)}")
    return f"The best of {count(len(board_of(reader, sweep)), 'trial')} {', '.join(words)}."


def _called(path: str) -> str:
    """`lr_g` of train.lr_g; `augment` of augment.name, for "name" alone says nothing."""
    section, _, last = path.rpartition(".")
    return section.rpartition(".")[2] if last == "name" and section else last


def _value(value: Any) -> str:
    return f"{value:.2g}" if isinstance(value, float) else str(value)


def _freezing(transfer: dict[str, Any]) -> str:
    method = transfer.get("method", "finetune")
    depths = {net: transfer.get(f"freeze_{net.lower()}", 0) for net in ("D", "G")}
    using = "" if method in ("finetune", "freeze") else f"used {method} and "
    if not (method in TRANSFERS and TRANSFERS.facts(method).get("freezes")) or not any(depths.values()):
        return f"used {method}" if using else "trained every block"
    frozen = [f"{count(depth, 'block')} of {net}" for net, depth in depths.items() if depth]
    return f"{using}kept {listed(frozen)} frozen"


def _verdict(reader: Reader, family: Family, result: Result) -> str:
    gated = [row for row in result.rows if row.gate]
    if not gated:
        return ""
    missed = [row for row in gated if not row.passed]
    if missed:
        asked = listed([f"{metric_name(row.name)} {row.gate}" for row in missed])
        return f"It missed the gate, which asks for {asked}."
    promoted = [e["ref"] for e in reader.events(result.judge.id) if e["type"] == "promoted"] if result.judge else []
    asked = listed([f"{metric_name(row.name)} {row.gate}" for row in gated])
    return f"The generator passed the gate ({asked})" + (f" and is now {promoted[-1]}." if promoted else ".")


def _progress(reader: Reader, family: Family) -> str:
    """How far a run got that has not succeeded; its state stands before this sentence."""
    subject = family.subject
    if subject.kind == "pipeline" and family.stages:
        return f"Of its {count(len(family.stages), 'stage')}, {_stages(family)}."
    if subject.kind == "sweep":
        return _trials(board_of(reader, subject))
    if subject.kind in TRAINING:
        return _amount(subject, history_of(reader.events(subject.id)))
    return "No stage has begun." if subject.kind == "pipeline" else ""


def _trials(rows: list[dict[str, Any]]) -> str:
    over = sum(row["state"] in ("succeeded", "stopped", "failed") for row in rows)
    if not rows:
        return "No trial has begun."
    best = next((row for row in rows if row["objective"] is not None and row["state"] != "failed"), None)
    so_far = f"; the best so far is {best['trial']} with {_value(best['objective'])}" if best else ""
    return f"{over} of {count(len(rows), 'trial')} {'is' if over == 1 else 'are'} done{so_far}."


def _amount(record: RunRecord, history: History) -> str:
    planned = (record.recipe or {}).get("train", {}).get("kimg")
    of = f" of {number(planned)}" if planned else ""
    done = min(history.nimg, history.total or history.nimg) / 1000
    return f"{number(done)}{of} kimg are done." if done else "No image was seen yet."


def _stages(family: Family) -> str:
    """`features and base are done, tune failed, eval has not begun`."""
    groups: dict[str, list[str]] = {}
    for name, record in family.stages.items():
        state = "waiting" if record is None else "interrupted" if is_abandoned(record) else record.state
        groups.setdefault(state, []).append(name)
    verbs = {
        "succeeded": ("is done", "are done"),
        "running": ("is running", "are running"),
        "interrupted": ("was interrupted", "were interrupted"),
        "failed": ("failed", "failed"),
        "stopped": ("was stopped", "were stopped"),
        "pending": ("waits", "wait"),
        "waiting": ("has not begun", "have not begun"),
    }
    return ", ".join(f"{listed(groups[s])} {verbs[s][len(groups[s]) > 1]}" for s in verbs if s in groups)


def numbers_of(reader: Reader, family: Family, result: Result) -> tuple[HeadlineNumber, ...]:
    """Quality, the images it took, trials, time."""
    found = []
    for row in [row for row in map(result.row, HEADLINE_METRICS) if row][:2]:
        note = _against(result, row).removeprefix(" on ")
        fake = row.protocol.get("samples_fake")
        found.append(
            HeadlineNumber(metric_title(row.name), row.value, f"{fake:,} samples, {note}" if fake else f"on {note}")
        )
    if result.target:
        found.append(HeadlineNumber("Real images", f"{result.target.count:,}", result.target.label))
    if result.maker and result.maker.kind == "sweep":
        rows = board_of(reader, result.maker)
        early = sum(row["state"] == "stopped" for row in rows)
        failed = sum(row["state"] == "failed" for row in rows)
        notes = [f"{early} stopped early" if early else "", f"{failed} failed" if failed else ""]
        found.append(HeadlineNumber("Trials", f"{len(rows):,}", ", ".join(note for note in notes if note)))
    time = duration(seconds_of(family.subject))
    if time:
        found.append(HeadlineNumber("Time", time, _time_note(family)))
    return tuple(found)


def _time_note(family: Family) -> str:
    started = family.subject.started or ""
    cached = sum((record.finished or "") < started for record in family.stages.values() if record)
    if cached:
        return f"{cached} of {count(len(family.stages), 'stage')} taken from the store"
    return count(len(family.stages), "stage") if family.stages else ""

"""`tlgan artifact verify`: is everything in the store that should be, and is it right? What is not can be mended."""

from __future__ import annotations

import re
import secrets
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jobs.output import Context, counted
from tlgan.errors import IntegrityError, SpecError

if TYPE_CHECKING:
    from cluster.store import ArtifactStore, VerifyReport
    from cluster.store.verify_journal import Journal
    from cluster.store.verifying import Depth, Plan, Subject


def verify(
    ctx: Context,
    refs: Annotated[
        list[str] | None, typer.Argument(metavar="REF", help="name:alias or name@digest, one or more.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every artifact and alias of the store.")] = False,
    full: Annotated[bool, typer.Option("--full", help="Read and hash every byte, not only sizes.")] = False,
    sample: Annotated[
        str | None, typer.Option("--sample", metavar="SHARE", help="Read and hash this share of the bytes, as in 5%.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", metavar="N", help="Draws the sample; default: another one each time.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where an interrupted one was.")] = False,
    repair: Annotated[
        str | None,
        typer.Option("--repair", metavar="URL", help="Mend what is missing or damaged from this other store."),
    ] = None,
    endpoint: Annotated[
        str | None, typer.Option("--repair-endpoint", metavar="URL", help="S3 server of the other store.")
    ] = None,
    profile: Annotated[
        str | None, typer.Option("--repair-profile", metavar="NAME", help="AWS profile with the key for it.")
    ] = None,
    server: Annotated[
        bool, typer.Option("--server", help="Look at the server instead: what it promises, asked now.")
    ] = False,
) -> None:
    """Check that artifacts are whole in the store. Exit code 8 and the list of problems when they are not.

    Without --full or --sample only names and sizes are compared. What is repaired stays repaired, whatever comes after.
    """
    if server and not any((refs, everything, full, sample, seed, resume, repair)):
        from jobs.verbs.doctor import show_server

        show_server(ctx)
        return
    if server:
        raise SpecError("--server looks at the server alone; other options and references were given")
    _check_call(refs, everything, full, sample, seed, resume)
    from cluster.store.layout import check_format
    from cluster.store.subjects import find, find_all, without_deleted
    from cluster.store.verify_journal import Journal
    from cluster.store.verifying import Verifier
    from jobs.verbs.moves import other_store

    store = ctx.open_store()
    source = other_store(store, repair, endpoint, profile) if repair else None
    check_format(store.store)
    subjects, stray = find_all(store.store) if everything else ([find(store.store, ref) for ref in refs or []], [])
    subjects = list({subject.version.key: subject for subject in subjects}.values())
    journal = Journal(store.store)
    depth = _depth(ctx, journal, full, sample, seed, resume)
    verifier = Verifier(store.store, depth, journal if depth.share else None)
    plan = verifier.plan(subjects)
    other = {"--repair": repair, "--repair-endpoint": endpoint, "--repair-profile": profile}
    again = _command(ctx, refs or [], everything, other)
    reports = _read(ctx, verifier.run, plan, journal, again)
    if everything:
        kept = {subject.version.key for subject in without_deleted(store.store, subjects)}
        pairs = [(s, r) for s, r in zip(subjects, reports, strict=True) if r.ok or s.version.key in kept]
        subjects, reports = [s for s, _ in pairs], [r for _, r in pairs]
        if not subjects:
            ctx.say(f"nothing is published in {store.url}")
    if source:
        reports = _mend(ctx, store, source, subjects, reports)
    result = Result(depth, plan, reports, stray)
    single = len(refs or []) == 1
    ctx.emit(result.one(reports[0]) if single else result.all(), lambda: result.text(single))
    result.check(store.url, source is not None)


@dataclass(frozen=True)
class Result:
    depth: Depth
    plan: Plan
    reports: list[VerifyReport]
    stray: list[str]

    def one(self, report: VerifyReport) -> dict[str, Any]:
        names = ("ref", "digest", "files", "bytes", "full", "ok", "problems", "repaired")
        return {name: getattr(report, name) for name in names} | {"read_bytes": report.read, **self._asked()}

    def all(self) -> dict[str, Any]:
        sums = {"blobs": len(self.plan.blobs), "bytes": self.plan.bytes, "read_bytes": self.plan.size(self.plan.drawn)}
        ok = not self.stray and all(report.ok for report in self.reports)
        artifacts = [self.one(report) for report in self.reports]
        return {"ok": ok, **sums, **self._asked(), "problems": self.stray, "artifacts": artifacts}

    def _asked(self) -> dict[str, Any]:
        return {"sample": self.depth.share, "seed": self.depth.seed if 0 < self.depth.share < 1 else None}

    def text(self, single: bool) -> str:
        lines = [f"mended: {_named(report, text, single)}" for report in self.reports for text in report.repaired]
        lines += [_named(report, text, single) for report in self.reports for text in report.problems]
        lines += self.stray
        if not self.stray and all(report.ok for report in self.reports):
            lines.append(self._whole(single))
        return "\n".join(lines)

    def _whole(self, single: bool) -> str:
        from jobs.verbs.words import size_text

        if single:
            report = self.reports[0]
            return f"{report.ref} is whole: {counted(report.files, 'file')}, {size_text(report.bytes)} ({self._how()})"
        count, blobs = counted(len(self.reports), "artifact"), counted(len(self.plan.blobs), "blob")
        verb = "is" if len(self.reports) == 1 else "are"
        return f"{count} {verb} whole: {blobs}, {size_text(self.plan.bytes)} ({self._how()})"

    def _how(self) -> str:
        from jobs.verbs.words import size_text

        if self.depth.share >= 1:
            return "every byte hashed"
        if self.depth.share <= 0:
            return "sizes only; --full hashes every byte"
        read = self.plan.size(self.plan.drawn)
        share = read / self.plan.bytes if self.plan.bytes else 0.0
        blobs = counted(len(self.plan.drawn), "blob")
        return f"{share:.1%} of the bytes hashed: {size_text(read)} in {blobs}; --seed {self.depth.seed} draws the same"

    def check(self, url: str, tried: bool) -> None:
        """Raises `IntegrityError` when something is left to mend."""
        bad = [report for report in self.reports if not report.ok]
        count = sum(len(report.problems) for report in bad) + len(self.stray)
        if not count:
            return
        what = bad[0].ref if len(bad) == 1 and not self.stray else counted(len(bad), "artifact")
        verb = "are" if len(bad) != 1 else "is"
        head = f"{what} in {url} {verb} damaged" if bad else f"aliases in {url} are damaged"
        hint = "publish the same files again to mend missing ones, or move the aliases to a version that is whole"
        if not tried:
            hint = f"--repair URL fetches it from another store that has it; or {hint}"
        raise IntegrityError(f"{head}: {counted(count, 'problem')}", hint=hint)


def _named(report: VerifyReport, text: str, single: bool) -> str:
    return text if single else f"{report.ref}: {text}"


def _check_call(
    refs: list[str] | None, everything: bool, full: bool, sample: str | None, seed: int | None, resume: bool
) -> None:
    if bool(refs) == everything:
        message = "both references and --all were given" if everything else "nothing to verify was named"
        raise SpecError(message, hint="give references (name:alias), or --all for the whole store")
    if full and sample is not None:
        raise SpecError("--full and --sample were given; expected one of them")
    if seed is not None and sample is None and not resume:
        raise SpecError("--seed draws a sample, and --sample is missing", hint="as in --sample 5% --seed 1")


def _share(text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?%", text.strip())
    if match is None or not 0 < float(match[1]) <= 100:
        raise SpecError(
            f"--sample {text!r} is no share of the bytes", hint="more than 0%, up to 100%, as in 5% or 0.5%"
        )
    return float(match[1]) / 100


def _depth(ctx: Context, journal: Journal, full: bool, sample: str | None, seed: int | None, resume: bool) -> Depth:
    """What is read, and the journal opened for it."""
    from cluster.store.verifying import Depth
    from jobs.verbs.words import size_text

    share = 1.0 if full else _share(sample) if sample is not None else 0.0
    asked = journal.resume() if resume else None
    if asked:
        read = size_text(sum(journal.verified.values()))
        ctx.say(f"going on: {read} were read and right since {asked['started'][:19].replace('T', ' ')} UTC")
        return Depth(share or float(asked["share"]), int(asked["seed"]) if seed is None else seed)
    if resume and not share:
        raise SpecError("there is no interrupted verification of this store to resume", hint="start one with --full")
    if resume:
        ctx.say("nothing was interrupted: starting at the beginning")
    seed = secrets.randbelow(1 << 31) if seed is None else seed
    if share:
        journal.start(share=share, seed=seed)
    return Depth(share, seed)


def _read(ctx: Context, run: Any, plan: Plan, journal: Journal, again: str) -> list[VerifyReport]:
    from jobs.verbs.transfers import byte_bar, store_warnings
    from jobs.verbs.words import size_text

    done, total = plan.size(plan.before), plan.size(plan.drawn)
    what = f"verifying {counted(len(plan.subjects), 'artifact')}"

    def told(size: int) -> None:
        nonlocal done
        done += size
        advance(size)

    try:
        with store_warnings(ctx), byte_bar(ctx, what, total) if total else _one_line(ctx, what) as advance:
            advance(done)
            reports: list[VerifyReport] = run(plan, told)
    except BaseException as error:
        if total:
            word = "interrupted" if isinstance(error, KeyboardInterrupt) else "broken off"
            ctx.say(f"{word}: {size_text(done)} of {size_text(total)} were read; go on with\n  {again}")
        raise
    if total:
        journal.end()
    return reports


@contextmanager
def _one_line(ctx: Context, what: str) -> Iterator[Callable[[int], None]]:
    ctx.say(f"{what} ...")
    yield lambda size: None


def _mend(
    ctx: Context, store: ArtifactStore, source: ArtifactStore, subjects: list[Subject], reports: list[VerifyReport]
) -> list[VerifyReport]:
    from cluster.store.repairing import Repairer
    from jobs.verbs.transfers import byte_bar

    bad = [report for report in reports if not report.ok]
    if not bad:
        return reports
    total = sum(entry.size for report in bad for entry in report.damaged)
    mended = list(reports)
    try:
        with byte_bar(ctx, f"mending {counted(len(bad), 'artifact')} from {source.url}", total) as advance:
            repairer = Repairer(store.store, source.store, told=advance)
            for i, (subject, report) in enumerate(zip(subjects, reports, strict=True)):
                if not report.ok:
                    mended[i] = repairer.repair(subject, report)
    except BaseException:
        done = sum(len(report.repaired) for report in mended)
        ctx.say(f"{counted(done, 'problem')} mended before that; the same command goes on")
        raise
    return mended


def _command(ctx: Context, refs: list[str], everything: bool, other: dict[str, str | None]) -> str:
    words = ["tlgan", "artifact", "verify", *(["--all"] if everything else refs), "--resume"]
    for name, value in {**other, "--store": ctx.store}.items():
        words += [name, value] if value else []
    return shlex.join(words)

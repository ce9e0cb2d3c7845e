"""What a person sees while jobs run: one live line a run on a terminal, one line an event elsewhere, JSON under --json."""

from __future__ import annotations

import sys
import threading
import time
from typing import Any

from jobs.output import Context, to_json

Event = dict[str, Any]
EVERY_SECONDS = 10.0


class Progress:
    """A listener for `jobs.session.Session`. Use as a context manager."""

    def __init__(self, ctx: Context) -> None:
        self.ctx = ctx
        self.live = sys.stderr.isatty() and not ctx.quiet and not ctx.json
        self.bars: Any = None
        self.tasks: dict[str, Any] = {}
        self.totals: dict[str, int] = {}
        self.metrics: dict[str, str] = {}
        self.trials: dict[str, dict[str, Event]] = {}
        self.said: dict[str, float] = {}
        self.lock = threading.Lock()

    def __enter__(self) -> Progress:
        if self.live:
            from rich.console import Console
            from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bars

            columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), TextColumn("{task.fields[told]}"))
            self.bars = Bars(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True)
            self.bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.bars:
            self.bars.stop()

    def __call__(self, run_id: str, event: Event) -> None:
        if self.ctx.quiet:
            return
        with self.lock:
            if self.ctx.json:
                print(to_json({"run": run_id, **event}), file=sys.stderr, flush=True)
                return
            method = getattr(self, f"_{event['type']}", None)
            if method:
                method(run_id, event)

    def _print(self, text: str) -> None:
        if self.bars:
            self.bars.console.print(text, highlight=False, markup=False)
        else:
            self.ctx.say(text)

    def _run(self, run_id: str, event: Event) -> None:
        made = " ".join(o["ref"] for o in event.get("outputs", []))
        reason = f": {event['reason']}" if event.get("reason") else ""
        self._print(f"{run_id}  {event['kind']} {event['state']}{reason}{'  ' + made if made else ''}")
        if self.bars and event["state"] != "running" and run_id in self.tasks:
            self.bars.remove_task(self.tasks.pop(run_id))

    def _cached(self, run_id: str, event: Event) -> None:
        made = " ".join(o["ref"] for o in event["outputs"])
        self._print(f"{run_id}  {event['kind']} unchanged, not run again{'  ' + made if made else ''}")

    def _started(self, run_id: str, event: Event) -> None:
        self.totals[run_id] = event["total"]
        workers = event.get("workers", 1)
        where = f"on {workers} worker{'s' * (workers > 1)}" + ", in bf16" * (event.get("precision") == "bf16")
        self._print(f"{run_id}  training for {event['total'] / 1000:g} kimg {where}")

    def _resumed(self, run_id: str, event: Event) -> None:
        self.totals.setdefault(run_id, event.get("total", 0))
        on = f" on {event['workers']} workers" if event.get("workers", 1) > 1 else ""
        self._print(f"{run_id}  resumed at {event['nimg'] / 1000:g} kimg{on}")

    def _lost(self, run_id: str, event: Event) -> None:
        why = f": {event['reason']}" if event.get("reason") else ""
        self._print(f"{run_id}  its {event['workers']} workers were lost ({event['cause']}){why}")

    def _waiting(self, run_id: str, event: Event) -> None:
        self._print(
            f"{run_id}  waits for {event['for']}: {event['workers']} workers, there is room for {event['room']}"
        )

    def _transfer(self, run_id: str, event: Event) -> None:
        coverage = event["coverage"]
        parts = [f"{count} tensors of {which} taken over" for which, count in coverage["matched"].items()]
        for what in ("reshaped", "missing"):
            count = sum(len(names) for names in coverage[what].values())
            if count:
                parts.append(f"{count} {'reshaped' if what == 'reshaped' else 'left fresh'}")
        frozen = ", ".join(f"{n:,} of {which}" for which, n in coverage["frozen"].items() if n)
        self._print(f"{run_id}  {'; '.join(parts)}{'; frozen parameters: ' + frozen if frozen else ''}")

    def _progress(self, run_id: str, event: Event) -> None:
        total = self.totals.get(run_id, 0)
        told = self._told(run_id, event)
        if self.bars:
            if run_id not in self.tasks:
                self.tasks[run_id] = self.bars.add_task(run_id, total=total, told="")
            seen = f"{event['nimg'] / 1000:.1f}/{total / 1000:g} kimg"
            self.bars.update(self.tasks[run_id], completed=event["nimg"], told=f"{seen}  {told}")
            return
        now = time.monotonic()
        if now - self.said.get(run_id, 0) >= EVERY_SECONDS or event["nimg"] >= total:
            self.said[run_id] = now
            self._print(f"{run_id}  {event['nimg'] / 1000:.1f}/{total / 1000:g} kimg  {told}{self._eta(event, total)}")

    def _told(self, run_id: str, event: Event) -> str:
        stats = event.get("stats", {})
        parts = [f"{event['img_per_s'] / 1000:.2f} kimg/s"] if "img_per_s" in event else []
        parts += [f"{name[5:].upper()} {stats[name]:.3f}" for name in ("loss_g", "loss_d") if name in stats]
        parts += [f"loss {stats['loss']:.3f}"] if "loss" in stats else []
        return "  ".join([*parts, self.metrics.get(run_id, "")]).strip()

    def _eta(self, event: Event, total: int) -> str:
        left = (total - event["nimg"]) / event["img_per_s"] if event.get("img_per_s") else 0
        return f"  {left:.0f} s left" if left >= 1 else ""

    def _metric(self, run_id: str, event: Event) -> None:
        said = f"{event['name']} {event['value']:.4g}"
        self.metrics[run_id] = said
        self._print(f"{run_id}  {said} at {event.get('nimg', 0) / 1000:g} kimg")

    def _trial(self, run_id: str, event: Event) -> None:
        board = self.trials.setdefault(run_id, {})
        before, board[event["trial"]] = board.get(event["trial"]), event
        ended = sum(t["state"] in ("succeeded", "stopped", "failed") for t in board.values())
        if self.bars:
            if run_id not in self.tasks:
                self.tasks[run_id] = self.bars.add_task(run_id, total=len(board), told="")
            best = [t["objective"] for t in board.values() if t["objective"] is not None]
            better = max if event.get("mode") == "max" else min
            told = f"{ended}/{len(board)} trials" + (f"  best {better(best):.4g}" if best else "")
            self.bars.update(self.tasks[run_id], completed=ended, total=len(board), told=told)
        if before is not None and before["state"] != event["state"] and event["state"] != "pending":
            value = "" if event["objective"] is None else f"  objective {event['objective']:.4g}"
            reason = f": {event['reason']}" if event["reason"] else ""
            params = " ".join(
                f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in event["params"].items()
            )
            seen = f" at {event['nimg'] / 1000:g} kimg" if event["nimg"] else ""
            self._print(f"{run_id}  trial {event['trial']} {event['state']}{seen}{value}{reason}  ({params})")

    def _final(self, run_id: str, event: Event) -> None:
        values = "  ".join(f"{m['name']} {m['value']:.4g}" for m in event["metrics"])
        self._print(f"{run_id}  trial {event['trial']} measured again with more samples: {values}")

    def _gate(self, run_id: str, event: Event) -> None:
        self._print(
            f"{run_id}  gate {event['bound']}: {'passed' if event['passed'] else 'FAILED'} ({event['value']:.4g})"
        )

    def _guard(self, run_id: str, event: Event) -> None:
        self._print(f"{run_id}  {event['reason']} (samples: the grid at {event['grid'] / 1000:g} kimg)")

    def _enough(self, run_id: str, event: Event) -> None:
        best, since = f"{event['best']:.4g}" if event["best"] is not None else "none", event["best_nimg"] / 1000
        self._print(f"{run_id}  {event['metric']} has not improved since {since:g} kimg ({best}): training ends")

    def _promoted(self, run_id: str, event: Event) -> None:
        self._print(f"{run_id}  {event['ref']} now is {event['digest'][:16]}")

    def _written(self, run_id: str, event: Event) -> None:
        self._print(f"{run_id}  {event['images']} images written to {event['path']}")


def one_line(event: Event) -> str:
    """An event for `tlgan events`: its time, its type, the rest as JSON."""
    rest = {k: v for k, v in event.items() if k not in ("time", "type", "protocol", "coverage")}
    return f"{event.get('time', '')[:19]}  {event['type']:<10} {to_json(rest)}"

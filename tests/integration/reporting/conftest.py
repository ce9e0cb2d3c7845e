"""A small pipeline that really ran, in this process: only Ray Tune is replaced, by a loop over the trials."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from cluster.specfile import parse_job
from cluster.store import ArtifactStore
from cluster.task import TaskHooks, run_gan
from cluster.trial import Trial
from cluster.tuner import row_of
from jobs.execute import execute
from jobs.session import Session
from tlgan.errors import TlganError

FEATURES = "classifier:digit-features:latest"
DIGITS = {"source": "digits", "resolution": 32, "seed": 3}
EVALUATION = {"extractor": FEATURES, "samples": 32, "data": {**DIGITS, "split": "test"}}
TRAIN = {"kimg": 0.5, "batch_size": 32}
PIPELINE: dict[str, Any] = {
    "version": 1,
    "kind": "pipeline",
    "name": "small",
    "stages": {
        "features": {
            "run": {"kind": "classifier", "name": "digit-features", "data": DIGITS, "train": {"kimg": 1.0}},
        },
        "base": {
            "run": {
                "kind": "pretrain",
                "name": "base",
                "data": {**DIGITS, "classes": ["0", "1", "2"]},
                "model": {"width": 4, "latent_dim": 8, "channels": 1},
                "train": {**TRAIN, "kimg": 0.6},
                "metrics": ["kid"],
                "checkpoint": {"every_kimg": 0.2},
                "evaluation": {"extractor": FEATURES, "samples": 32},
                "output": {"artifact": "zeros32"},
            },
            "needs": ["features"],
        },
        "tune": {
            "run": {
                "kind": "sweep",
                "name": "search",
                "base": {
                    "kind": "finetune",
                    "name": "tuned",
                    "init_from": {"stage": "base"},
                    "data": {**DIGITS, "split": "train", "limit": 60},
                    "transfer": {"method": "freeze"},
                    "train": TRAIN,
                    "evaluation": EVALUATION,
                },
                "space": {
                    "train.lr_g": {"log_uniform": [1e-4, 1e-3]},
                    "transfer.freeze_d": {"int": [1, 3]},
                    "augment.name": {"choice": ["none", "diffaugment"]},
                },
                "search": {"trials": 3, "seed": 1},
                "early_stop": {"scheduler": "asha", "grace_kimg": 0.2, "eta": 2},
                "final_samples": 48,
                "output": {"artifact": "digits32", "aliases": ["best"]},
            },
            "needs": ["base", "features"],
        },
        "eval": {
            "run": {
                "kind": "evaluate",
                "name": "check",
                "target": {"stage": "tune"},
                "data": {**DIGITS, "split": "test"},
                "metrics": ["kid", "recall"],
                "samples": 40,
                "extractor": FEATURES,
                "gate": {"kid": "< 1000"},
                "promote": "production",
            },
            "needs": ["tune", "features"],
        },
    },
}


def search_here(session: Any, job: Any, director: Any, task_of: Any, tell: Callable[[Trial], None]) -> None:
    """The first trial to its end, the second stopped at its first measurement, the third fails."""
    for number in range(3):
        turn = director.next_turn()
        assert turn
        director.begun(turn.trial)
        if number == 2:
            director.ended(turn.trial, "the disk <is> full")
        else:
            run_gan(task_of(turn), TaskHooks(measured=partial(measured_here, job, director, turn.trial, number)))
            director.ended(turn.trial)
        tell(row_of(director.member(turn.trial), None))


def measured_here(job: Any, director: Any, trial: str, number: int, nimg: int, values: dict[str, float]) -> bool:
    """The first is the best, however little was trained. True: the trial ends here."""
    director.measured(trial, nimg, values[job.objective.metric] + number)
    return any(answer.do == "stop" for answer in director.answers())


@dataclass
class Made:
    """The store of the pipeline, and the ids of its runs by stage."""

    store: Path
    artifacts: ArtifactStore
    pipeline: str
    runs: dict[str, str]


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    store = tmp_path_factory.mktemp("report") / "store"
    artifacts = ArtifactStore(str(store))
    with pytest.MonkeyPatch.context() as patch, Session(artifacts) as session:
        patch.setattr("jobs.kinds.sweep.search", search_here)
        record = execute(parse_job(PIPELINE), session)
    return Made(store, artifacts, record.id, {name: s["run"] for name, s in record.facts["stages"].items()})


@pytest.fixture
def spoilt(made: Made, tmp_path: Path) -> Made:
    """A copy of the store, to be damaged."""
    copy = tmp_path / "copy"
    shutil.copytree(made.store, copy)
    return Made(copy, ArtifactStore(str(copy)), made.pipeline, made.runs)


@pytest.fixture
def run_job() -> Callable[..., str]:
    """Runs a spec in a store, whatever comes of it; returns the id of its run."""

    def go(artifacts: ArtifactStore, spec: dict[str, Any]) -> str:
        with Session(artifacts) as session:
            try:
                return execute(parse_job(spec), session).id
            except TlganError:
                return session.runs.get(spec["name"]).id

    return go


@dataclass
class Page(HTMLParser):
    """A page's ids, pictures and words, checked for balance."""

    ids: set[str] = field(default_factory=set)
    pictures: list[str] = field(default_factory=list)
    open: list[str] = field(default_factory=list)
    words: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        known = dict(attrs)
        self.ids |= {known["id"] or ""} if "id" in known else set()
        self.pictures += [known["src"] or ""] if tag == "img" and "src" in known else []
        if tag not in {"meta", "link", "img", "input", "br"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.words.append(data)


@pytest.fixture
def read() -> Callable[[str], Page]:
    def parse(text: str) -> Page:
        page = Page()
        page.feed(text)
        page.close()
        assert not page.open
        assert all(source.startswith("data:image/png;base64,") for source in page.pictures)
        return page

    return parse

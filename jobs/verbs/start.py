"""Verbs to begin with."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer

from cluster.config import PROJECT_FILE
from jobs.output import Context
from tlgan.errors import Conflict, SpecError, did_you_mean

_NEEDS = {"sweep": ["finetune"], "pipeline": ["classifier", "pretrain", "finetune", "sweep", "evaluate", "generate"]}
_SETTINGS = """\
# Settings of this project. The environment (TLGAN_STORE, TLGAN_TARGET, ...) and options come before them.
# No secrets in here: AWS_ACCESS_KEY_ID and the like belong into the environment.

store: .tlgan/store             # where results are published: a directory, or s3://bucket/prefix
# s3_endpoint: http://127.0.0.1:9000

defaults:
  target: local                 # where jobs run: local, or a name below

# targets:
#   lab: {kind: ray, address: "http://ray.example.org:8265"}    # the dashboard; its token in RAY_AUTH_TOKEN
#   k8s: {kind: kuberay, image: registry.example.org/tlgan:1, env_from: [store-keys]}
"""


def init(
    ctx: Context,
    kind: Annotated[str, typer.Argument(help="Kind of job: pretrain, finetune, sweep, pipeline, ...")] = "pretrain",
) -> None:
    """Write a commented spec to start from, and tlgan.yaml, into the current folder."""
    from cluster.job import KINDS

    if kind not in KINDS:
        message = f'unknown kind "{kind}"; expected one of: {", ".join(KINDS)}'
        raise SpecError(message, hint=did_you_mean(kind, KINDS))
    folder = files("jobs") / "specs"
    texts = {f"{k}.yaml": (folder / f"{k}.yaml").read_text(encoding="utf-8") for k in [kind, *_NEEDS.get(kind, [])]}
    texts |= {} if Path(PROJECT_FILE).exists() else {PROJECT_FILE: _SETTINGS}
    if there := [name for name in texts if Path(name).exists()]:
        raise Conflict(
            f"{', '.join(there)} exists already; nothing was written", hint="move it away, or start elsewhere"
        )
    for name, text in texts.items():
        with Path(name).open("x", encoding="utf-8") as stream:
            stream.write(text)
    ctx.emit({"files": list(texts)}, "\n".join(texts))
    ctx.say(f"next: tlgan validate {kind}.yaml")

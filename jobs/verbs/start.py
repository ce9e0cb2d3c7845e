"""Verbs to begin with."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer

from cluster.config import PROJECT_FILE
from jobs.output import Context
from tlgan.errors import Conflict, SpecError, did_you_mean

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
    example: Annotated[str, typer.Argument(help="A kind of job, or another of --list.")] = "pretrain",
    list_: Annotated[bool, typer.Option("--list", help="Show what there is to start from.")] = False,
) -> None:
    """Write a commented spec to start from, what it refers to, and tlgan.yaml, into the current folder."""
    folder = files("jobs") / "specs"
    examples = {
        item.name.removesuffix(".yaml"): item.read_text(encoding="utf-8")
        for item in sorted(folder.iterdir(), key=lambda item: item.name)
        if item.name.endswith(".yaml")
    }
    if list_:
        rows = [{"example": name, "what": _about(text)} for name, text in examples.items()]
        ctx.emit(rows, "\n".join(f"{row['example']:<20}  {row['what']}" for row in rows))
        return
    if example not in examples:
        message = f'unknown example "{example}"; expected one of: {", ".join(examples)}'
        raise SpecError(message, hint=did_you_mean(example, examples))
    if Path(f"{example}.yaml").exists():
        raise Conflict(f"{example}.yaml exists already; nothing was written", hint="move it away, or start elsewhere")
    texts = {f"{name}.yaml": examples[name] for name in _with_needed(example, examples)} | {PROJECT_FILE: _SETTINGS}
    kept = [name for name in texts if Path(name).exists()]
    written = [name for name in texts if name not in kept]
    for name in written:
        with Path(name).open("x", encoding="utf-8") as stream:
            stream.write(texts[name])
    ctx.emit({"files": written}, "\n".join(written))
    if kept:
        ctx.say(f"kept as it is: {', '.join(kept)}")
    ctx.say(f"next: tlgan validate {example}.yaml")


def _about(text: str) -> str:
    """The first sentence of a spec's comment, without the command behind it."""
    comment = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        comment.append(line.removeprefix("# ").partition("   ")[0])
    sentence, dot, _ = " ".join(comment).partition(". ")
    return sentence + dot.strip()


def _with_needed(example: str, examples: dict[str, str]) -> list[str]:
    """An example and those that it names as files, theirs too, each once."""
    found = [example]
    for name in found:
        named = re.findall(r"^[^#]*?\b(?:run|base): ([\w-]+)\.yaml", examples[name], re.MULTILINE)
        found += [other for other in dict.fromkeys(named) if other not in found]
    return found

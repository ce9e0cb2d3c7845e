"""Verbs about the program itself."""

from __future__ import annotations

import os
import platform
from typing import Annotated

import typer

import tlgan
from jobs.output import Context, table
from tlgan.errors import SpecError, did_you_mean

SHELLS = ("bash", "zsh", "fish", "powershell", "pwsh")


def version(ctx: Context) -> None:
    """Print the versions of tlgan and of what it stands on."""
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as version_of

    versions = {"tlgan": tlgan.__version__, "python": platform.python_version()}
    for package in ("torch", "ray", "pydantic"):
        try:
            versions[package] = version_of(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    ctx.emit(versions, "\n".join(f"{name} {number}" for name, number in versions.items()))


def config_show(ctx: Context) -> None:
    """Show the settings in force and where each comes from."""
    from cluster.config import read_settings
    from cluster.store.base import scrub

    settings = read_settings(store=ctx.store)
    shown = {name: {"value": s.value and scrub(s.value), "origin": s.origin} for name, s in settings.items()}
    rows = [[name, s["value"] or "-", s["origin"] or ""] for name, s in shown.items()]
    ctx.emit(shown, table(rows, ["setting", "value", "from"]))


def completion(
    ctx: Context, shell: Annotated[str | None, typer.Argument(help="bash, zsh, fish or pwsh; default: $SHELL.")] = None
) -> None:
    """Print the shell's completion script: eval "$(tlgan completion bash)"."""
    from typer.completion import get_completion_script  # type: ignore[attr-defined]

    from jobs.cli import COMPLETE_VARIABLE, PROGRAM

    name = shell or os.path.basename(os.environ.get("SHELL", ""))
    if name not in SHELLS:
        message = f'no completion for the shell "{name}"; expected one of: {", ".join(SHELLS)}'
        raise SpecError(message, hint=did_you_mean(name, SHELLS))
    script = get_completion_script(prog_name=PROGRAM, complete_var=COMPLETE_VARIABLE, shell=name)
    ctx.emit({"shell": name, "script": script}, script)

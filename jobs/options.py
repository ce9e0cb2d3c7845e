"""Options that several verbs share."""

from __future__ import annotations

from typing import Annotated

import typer

SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", "-s", metavar="PATH=VALUE", help="Change a field of the spec: train.kimg=8. Repeatable."),
]
"""`overrides: SetOption = None`: the texts go to `cluster.specfile.load_spec`."""

OnOption = Annotated[
    str | None,
    typer.Option("--on", metavar="TARGET", help="A target of tlgan.yaml; default: TLGAN_TARGET, its defaults, local."),
]
"""`on: OnOption = None`: the name goes to `cluster.targets.open_target`."""

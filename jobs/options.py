"""Options that several verbs share."""

from __future__ import annotations

from typing import Annotated

import typer

SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", "-s", metavar="PATH=VALUE", help="Change a field of the spec: train.kimg=8. Repeatable."),
]
"""`overrides: SetOption = None`: the texts go to `cluster.specfile.load_spec`."""

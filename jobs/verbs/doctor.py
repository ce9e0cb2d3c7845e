"""`tlgan doctor`: whether the store, its server, this machine and its packages are fit for work."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from jobs.output import Context, table
from tlgan.errors import BackendError, SpecError

if TYPE_CHECKING:
    from cluster.doctor import Diagnosis

FreshOption = Annotated[bool, typer.Option("--fresh", help="Ask the server anew what it honours, not the cache.")]
_MARKS = {"ok": "ok", "note": "!", "fail": "FAIL"}


def doctor(ctx: Context, fresh: FreshOption = False) -> None:
    """Check that the store can be used, what its server promises, and that this machine is ready.

    Exit code 5 when the store can't be used; what is merely worth knowing is marked with "!".
    """
    from cluster.doctor import diagnose

    found = diagnose(ctx.store_url(), fresh=fresh)
    ctx.emit(found.to_json(), lambda: _page(found))
    broken = [finding for finding in found.findings if finding.state == "fail"]
    if broken:
        raise BackendError(broken[0].text, hint=broken[0].hint)


def _page(found: Diagnosis) -> str:
    rows = [[_MARKS[finding.state], finding.area, finding.text] for finding in found.findings]
    hints = [
        f"{finding.area}: {finding.hint}" for finding in found.findings if finding.state == "note" and finding.hint
    ]
    server = found.facts.get("server")
    if server:
        when = server["seen"][:19].replace("T", " ")
        cost = f"{server['requests']} requests, {server['seconds']:.2f} s"
        hints.append(f"server: asked at {when} UTC ({cost}); --fresh asks again")
    return "\n".join([table(rows, ["", "", ""]).lstrip("\n"), *hints])


def show_server(ctx: Context) -> None:
    """What the server of the store honours, asked now. Raises `SpecError` for a store without a server."""
    from cluster.store import open_store
    from cluster.store.local import DirectoryStore

    store = open_store(ctx.store_url())
    if isinstance(store, DirectoryStore):
        raise SpecError(f"{store.url} is a directory: there is no server to ask", hint="tlgan doctor looks at it")
    probe = store.probe_now()  # type: ignore[attr-defined]
    promised = vars(probe.capabilities)
    facts = {"url": store.url, "endpoint": store.endpoint, "capabilities": promised, **probe.model_dump()}  # type: ignore[attr-defined]
    ctx.emit(facts, lambda: table([[question, answer] for question, answer in probe.words()], [store.url, ""]))

"""Is everything there that a job needs? Looks at the store, its server, this machine, the packages, the Ray address and the
target that runs are submitted to.

Nothing is changed but objects below `probe/`, which a probe of the server writes, and removes where it may.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from packaging.requirements import Requirement

from cluster.ray_session import check_answers
from cluster.store import Store, open_store
from cluster.store.cache import cache_root
from cluster.store.layout import FORMAT_NAME, FORMAT_VERSION, check_format
from cluster.store.local import DirectoryStore
from cluster.store.trimming import cached_items, cap_bytes, size_of
from cluster.targets import open_target
from tlgan.errors import TlganError

if TYPE_CHECKING:
    from cluster.store.s3 import S3Store

State = Literal["ok", "note", "fail"]
SKEW_SECONDS = 5.0
SKEW_REFUSED = 900.0  # servers refuse signatures that are older
ROOM = 1 << 30
LEFTOVER = timedelta(days=1)
UPLOAD_AGE = timedelta(days=7)


@dataclass(frozen=True)
class Finding:
    """`note`: it works, but a person should know; `fail`: the store can't be used; `hint`: what to do."""

    area: str
    text: str
    state: State = "ok"
    hint: str | None = None


@dataclass
class Diagnosis:
    """`facts` by area, for programs; `findings` in order, for people."""

    facts: dict[str, Any] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    @property
    def usable(self) -> bool:
        return all(finding.state != "fail" for finding in self.findings)

    def add(self, area: str, text: str, state: State = "ok", hint: str | None = None) -> None:
        self.findings.append(Finding(area, text, state, hint))

    def to_json(self) -> dict[str, Any]:
        problems = [vars(finding) for finding in self.findings if finding.state != "ok"]
        return {"usable": self.usable, **self.facts, "problems": problems}


def diagnose(url: str | None = None, *, fresh: bool = False) -> Diagnosis:
    """`fresh` asks the server anew what it honours. Raises `SpecError` for a URL that is none."""
    found, store = Diagnosis(), open_store(url)
    if _reads(found, store):
        if isinstance(store, DirectoryStore):
            _directory(found, store)
        else:
            _server(found, store, fresh)  # type: ignore[arg-type]
    _cache(found)
    _packages(found)
    _ray(found)
    _target(found)
    return found


def _reads(found: Diagnosis, store: Store) -> bool:
    endpoint = getattr(store, "endpoint", None)
    place = store.url + (f" at {endpoint}" if endpoint else "")
    facts = found.facts["store"] = {"url": store.url, "endpoint": endpoint, "reachable": False, "format": None}
    try:
        known = check_format(store)
        next(iter(store.list("aliases/")), None)
    except TlganError as error:
        found.add("store", error.message, "fail", error.hint)
        _clock(found, store)
        return False
    facts |= {"reachable": True, "format": f"{FORMAT_NAME} {FORMAT_VERSION}" if known else None}
    found.add(
        "store", f"{place}, " + (f"format {FORMAT_VERSION}" if known else "empty: the first push writes the format")
    )
    return True


def _directory(found: Diagnosis, store: DirectoryStore) -> None:
    there = next(path for path in (store.root, *store.root.parents) if path.exists())
    write, free = _takes_files(there), shutil.disk_usage(there).free
    found.facts["rights"] = {"read": True, "write": write, "delete": write}
    found.facts["capabilities"] = vars(store.capabilities)
    found.facts["store"]["free_bytes"] = free
    if write:
        found.add("rights", "read, write, delete")
    else:
        found.add("rights", f"read only: {there} can't be written", "note")
    found.add("server", "two people can move an alias at once: yes (by a lock file in the store)")
    _room(found, "store", f"{_gb(free)} free for the store", free)


def _takes_files(folder: Path) -> bool:
    """Tried, not asked: root may do anything by the book, and some file systems take no files all the same."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _server(found: Diagnosis, store: S3Store, fresh: bool) -> None:
    try:
        probe = store.probe_now() if fresh else store.probe
    except TlganError as error:
        found.add("server", error.message, "fail", error.hint)
        return
    finally:
        _clock(found, store)
    found.facts["rights"] = {"read": True, "write": probe.write, "delete": probe.delete}
    found.facts["capabilities"] = vars(probe.capabilities)
    found.facts["server"] = probe.model_dump()
    rights = [name for name in ("write", "delete") if getattr(probe, name)]
    found.add("rights", ", ".join(["read", *rights]) + ("" if rights else " only"), "ok" if rights else "note")
    for question, answer in probe.words():
        found.add("server", f"{question}: {answer}", "note" if re.match("NO|no: ", answer) else "ok")
    found.add("server", f"small objects are put {store.fast.describe()}")
    if probe.delete:
        _leftovers(found, store)


def _leftovers(found: Diagnosis, store: S3Store) -> None:
    """Removes what probes by keys that may not delete left behind; names uploads that nobody ended."""
    from botocore.exceptions import ClientError

    now = datetime.now(UTC)
    for info in list(store.list("probe/")):
        if now - info.modified > LEFTOVER:
            store.delete(info.key)
    try:
        answer = store.client.list_multipart_uploads(Bucket=store.bucket, Prefix=store.prefix)
    except ClientError:  # not allowed, not known, or (rclone) there are none
        return
    old = [upload["Key"] for upload in answer.get("Uploads", []) if now - upload["Initiated"] > UPLOAD_AGE]
    found.facts["store"]["unfinished_uploads"] = len(old)
    if old:
        text = f"{len(old)} uploads were begun over {UPLOAD_AGE.days} days ago and never ended, the first of {old[0]}"
        found.add("store", text, "note", "they cost room: a lifecycle rule ends them (infra/s3/lifecycle.json)")


def _clock(found: Diagnosis, store: Store) -> None:
    skew = None if isinstance(store, DirectoryStore) else store.known.skew  # type: ignore[attr-defined]
    found.facts["clock_skew_seconds"] = None if skew is None else round(skew, 1)
    if skew is None:
        return
    text = "with the server, to the second"
    if abs(skew) >= 1.5:
        text = f"{abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} the server"
    far = abs(skew) > SKEW_SECONDS
    hint = f"set this machine's clock; over {SKEW_REFUSED / 60:.0f} min signatures are refused"
    found.add("clock", text, "note" if far else "ok", hint if far else None)


def _cache(found: Diagnosis) -> None:
    root = cache_root()
    there = next(path for path in (root.absolute(), *root.absolute().parents) if path.exists())
    write, free = _takes_files(there), shutil.disk_usage(there).free
    used = size_of(list(cached_items(root / "store")))
    facts = found.facts["cache"] = {"path": str(root), "bytes": used, "free_bytes": free, "writable": write}
    try:
        facts["cap_bytes"] = cap = cap_bytes(root / "store")
    except TlganError as error:
        found.add("cache", error.message, "note", error.hint)
        return
    if not write or not there.is_dir():
        hint = "set TLGAN_CACHE to a directory that can be written"
        found.add("cache", f"{root} can't be written", "note", hint)
        return
    limit = "no cap" if cap is None else f"at most {_gb(cap)}"
    _room(found, "cache", f"{root} holds {_gb(used)}, {limit}; {_gb(free)} free", free)


def _room(found: Diagnosis, area: str, text: str, free: int) -> None:
    scarce = free < ROOM
    found.add(area, text, "note" if scarce else "ok", "make room, or work elsewhere" if scarce else None)


def _packages(found: Diagnosis) -> None:
    rows = found.facts["packages"] = [
        {"name": name, "installed": here, "expected": expected, "ok": fits} for name, here, expected, fits in packages()
    ]
    wrong = [row for row in rows if not row["ok"]]
    for row in wrong:
        text = f"{row['name']} {row['installed'] or 'is not installed'}; expected {row['expected']}"
        found.add("packages", text, "note", "make quickstart sets up what was tested, by constraints.txt")
    if rows and not wrong:
        found.add("packages", f"{len(rows)} packages, all as expected")


def packages() -> Iterator[tuple[str, str | None, str, bool]]:
    """What tlgan needs: name, installed version, what is expected, whether it fits.

    Expected is the version of `constraints.txt` in a source tree, else the range of the package's own description.
    """
    pins = _pins(Path(__file__).parents[1] / "constraints.txt")
    try:
        wanted = [Requirement(text) for text in requires("tlgan") or []]
    except PackageNotFoundError:  # run from a source tree that is not installed
        return
    for one in wanted:
        if one.marker is not None and not one.marker.evaluate({"extra": ""}):
            continue
        pin = pins.get(_plain(one.name))
        try:
            here = version(one.name)
        except PackageNotFoundError:
            yield one.name, None, pin or str(one.specifier), False
            continue
        fits = here.partition("+")[0] == pin if pin else one.specifier.contains(here, prereleases=True)
        yield one.name, here, pin or str(one.specifier), fits


def _pins(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    lines = (line.partition("==") for line in path.read_text().splitlines() if "==" in line and line[0] != "#")
    return {_plain(name): pinned.partition(";")[0].strip().partition("+")[0] for name, _, pinned in lines}


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name.partition("[")[0].strip()).lower()


def _ray(found: Diagnosis) -> None:
    address = os.environ.get("RAY_ADDRESS") or None
    facts = found.facts["ray"] = {"address": address, "reachable": None}
    if address in (None, "local"):
        found.add("ray", "no address set: jobs start one here")
        return
    try:
        check_answers(str(address))
    except TlganError as error:
        facts["reachable"] = False
        found.add("ray", error.message, "note", error.hint)
        return
    facts["reachable"] = None if address == "auto" else True
    found.add("ray", f"{address}" + ("" if address == "auto" else " answers"))


def _target(found: Diagnosis) -> None:
    """Where `tlgan submit` would start a run: whether it can be reached, and what it has."""
    facts: dict[str, Any] = {"name": None, "kind": None, "reachable": None, "nodes": None}
    found.facts["target"] = facts
    try:
        target = open_target()
        facts |= {"name": target.name, "kind": target.kind}
        nodes = target.nodes()
    except TlganError as error:
        facts["reachable"] = False
        found.add("target", error.message, "note", error.hint)
        return
    facts |= {"reachable": None if nodes is None else True, "nodes": nodes}
    room = "" if nodes is None else f": {', '.join(_room_of(node) for node in nodes[:4])}{' ...' * (len(nodes) > 4)}"
    found.add("target", f"{target.name} ({target.kind}){room}")


def _room_of(node: dict[str, float]) -> str:
    return (
        " and ".join(f"{node[what]:g} {what}s" for what in ("CPU", "GPU") if node.get(what))
        or "nothing to compute with"
    )


def _gb(count: int) -> str:
    return f"{count / 1e9:.1f} GB"

"""`tlgan artifact gc / rm / restore` and `ls --deleted`: nothing goes unasked, what goes can come back."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_answers import Tlgan

from cluster.runs import Runs, new_record
from cluster.store import ArtifactStore
from cluster.store.condemned import condemn, condemned_lists
from cluster.store.records import to_bytes
from jobs.output import Context
from jobs.verbs import collect
from tlgan.manifest import Manifest

Push = Callable[..., Manifest]
AT_ONCE = ("--restorable", "0", "--grace", "0")


@pytest.fixture
def push(tmp_path: Path) -> Push:
    """Publishes one file of 1000 bytes that only this version has, beside one that all share."""

    def publish(name: str, content: str, **about: object) -> Manifest:
        folder = tmp_path / f"{name}-{content}"
        folder.mkdir()
        (folder / "own.txt").write_text(content.ljust(1000))
        (folder / "shared.txt").write_text("shared")
        return ArtifactStore().push(name, folder, kind="files", **about)  # type: ignore[arg-type]

    return publish


@pytest.fixture
def three(push: Push) -> list[Manifest]:
    return [push("model", str(number)) for number in range(3)]


def refs(manifests: list[Manifest]) -> list[str]:
    return [manifest.ref for manifest in manifests]


def stored(name: str = "model") -> list[str]:
    return [version.ref for version in ArtifactStore().versions(name)]


def blob_bytes() -> int:
    return sum(info.size for info in ArtifactStore().store.list("blobs/"))


def test_gc_shows_and_deletes_nothing_unasked(tlgan_cli: Tlgan, three: list[Manifest]) -> None:
    ArtifactStore().move_alias("model", "best", three[0].digest)
    shown = tlgan_cli("artifact", "gc", "--keep-last", "1", "--json")
    assert shown.code == 0
    assert "--delete carries it out" in shown.err
    row = shown.data
    assert [(v["ref"], v["bytes"], v["created"]) for v in row["versions"]] == [(three[1].ref, 1006, three[1].created)]
    assert {v["ref"]: v["reason"] for v in row["kept"]} == {three[0].ref: "alias best", three[2].ref: "alias latest"}
    assert (row["dry_run"], row["deleted"], row["blobs"], row["live_versions"]) == (True, None, [], 2)
    assert row["waiting"] == {"of deleted versions that can be restored": {"count": 1, "bytes": 1000}}
    text = tlgan_cli("artifact", "gc", "--keep-last", "1").out
    assert text.splitlines()[:2] == ["versions that go", "  version                 created (UTC)        size"]
    assert f"  {three[0].ref}  {three[0].created[:19].replace('T', ' ')}  alias best" in text.splitlines()
    assert stored() == refs(three)


def test_gc_deletes_by_the_rules_and_restore_brings_back(tlgan_cli: Tlgan, any_store: str, push: Push) -> None:
    three = [push("model", str(number)) for number in range(3)]
    done = tlgan_cli("artifact", "gc", "--keep-last", "1", "--delete", "--json")
    assert (done.code, done.data["dry_run"]) == (0, False)
    assert done.data["deleted"]["versions"] == refs(three[:2])
    assert done.data["deleted"]["bytes"] == 0
    assert stored() == [three[2].ref]
    listed = tlgan_cli("artifact", "ls", "--deleted", "--json").data
    assert [(row["ref"], row["restorable"], row["bytes"]) for row in listed] == [
        (ref, True, 1006) for ref in sorted(refs(three[:2]), key=[row["ref"] for row in listed].index)
    ]
    back = tlgan_cli("artifact", "restore", three[0].ref, three[1].ref[:-8])
    assert (back.code, back.out) == (0, f"{three[0].ref}  restored\n{three[1].ref}  restored\n")
    assert stored() == refs(three)
    assert all(ArtifactStore().verify(ref, full=True).ok for ref in refs(three))
    assert tlgan_cli("artifact", "restore", three[0].ref).out == f"{three[0].ref}  was not deleted\n"


def test_what_can_not_be_restored_any_more_frees_its_bytes(tlgan_cli: Tlgan, three: list[Manifest]) -> None:
    tlgan_cli("artifact", "gc", "--keep-last", "1", "--delete")
    assert blob_bytes() == 3006
    shown = tlgan_cli("artifact", "gc", *AT_ONCE)
    assert "files that go   2 files, 2.0 kB" in shown.out.splitlines()
    assert "gone for good   2 versions deleted before" in shown.out.splitlines()
    done = tlgan_cli("artifact", "gc", *AT_ONCE, "--delete")
    assert done.out.splitlines() == [
        "deleted 2 files, 2.0 kB",
        "2 versions deleted before can't be restored any more",
    ]
    assert "deleting (2.0 kB) ..." in done.err
    assert blob_bytes() == 1006
    gone = tlgan_cli("artifact", "restore", three[0].ref)
    assert (gone.code, gone.out) == (3, "")
    assert "is no deleted version" in gone.err
    assert ArtifactStore().verify("model:latest", full=True).ok


def test_young_files_are_spared_and_said(tlgan_cli: Tlgan, three: list[Manifest]) -> None:
    ArtifactStore().store.put("blobs/ab/" + "ab" * 32, b"x" * 500)
    assert "  1 file, 500 B: younger than the grace time" in tlgan_cli("artifact", "gc").out.splitlines()
    assert [b["bytes"] for b in tlgan_cli("artifact", "gc", "--grace", "0", "--json").data["blobs"]] == [500]


def test_names_age_and_best(tlgan_cli: Tlgan, push: Push) -> None:
    embedded, other = {"extractor": "e", "samples_fake": 10}, {"extractor": "e", "samples_fake": 20}
    made = [
        push("model", str(n), metrics=[{"name": "kid", "value": value, "protocol": protocol}])
        for n, (value, protocol) in enumerate([(0.1, embedded), (0.2, embedded), (0.05, other), (0.3, embedded)])
    ]
    push("photo", "1")
    push("photo", "2")

    def going(*options: str) -> list[str]:
        return [v["ref"] for v in tlgan_cli("artifact", "gc", "--json", *options).data["versions"]]

    last = ("--keep-last", "0", "--name", "mod*")
    assert going(*last) == refs(made[:3])
    assert going(*last, "--keep-best", "kid") == [made[1].ref]  # the one taken otherwise can't be called worse
    assert going(*last, "--keep-best", "kid:2") == []
    assert going(*last, "--keep-best", "kid:1:max") == refs(made[:2])
    assert going("--older-than", "1h") == []
    assert len(going("--older-than", "0")) == 4
    kept = tlgan_cli("artifact", "gc", "--json", *last, "--keep-best", "kid").data["kept"]
    assert {v["ref"]: v["reason"] for v in kept}[made[2].ref] == "best by kid"
    assert "fits none*" in tlgan_cli("artifact", "gc", "--older-than", "1d", "--name", "none*").err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--keep-best", "kid"), "add --keep-last N or --older-than AGE"),
        (("--name", "x"), "--name only spares versions"),
        (("--keep-last", "1", "--keep-best", "kdi"), 'did you mean "kid"?'),
        (("--keep-last", "1", "--keep-best", "accuracy"), "--keep-best accuracy:1:max"),
        (("--keep-last", "1", "--keep-best", "kid:0"), "is no metric with a number"),
        (("--keep-last", "-1"), "--keep-last"),
        (("--older-than", "6m"), "m could be minutes or months"),
        (("--older-than", "soon"), "--older-than 'soon' is no length of time"),
        (("--older-than", ""), "is no length of time"),
        (("--older-than", "9" * 30 + "d"), "longer than time"),
        (("--grace", "-1h"), "--grace '-1h' is no length of time"),
    ],
)
def test_mistakes_in_the_rules(tlgan_cli: Tlgan, three: list[Manifest], options: tuple[str, ...], said: str) -> None:
    answer = tlgan_cli("artifact", "gc", "--delete", *options)
    assert (answer.code, answer.out) == (2, "")
    assert said in answer.err
    assert stored() == refs(three)


def test_gc_of_an_empty_store_writes_nothing(tlgan_cli: Tlgan) -> None:
    answer = tlgan_cli("artifact", "gc", "--delete")
    assert (answer.code, answer.out) == (0, "deleted 0 files, 0 B\n")
    assert "has no artifacts" in answer.err
    assert not Path("store").exists()


def test_gc_refuses_while_a_manifest_is_damaged(tlgan_cli: Tlgan, three: list[Manifest]) -> None:
    key = ArtifactStore().versions("model")[0].key
    ArtifactStore().store.put(key, b"{" + b" " * 200)
    answer = tlgan_cli("artifact", "gc", *AT_ONCE, "--delete", "--json")
    assert (answer.code, answer.out) == (8, "")
    assert "nothing is collected" in answer.error["message"]
    assert blob_bytes() == 3006


def test_a_person_is_asked(tlgan_cli: Tlgan, three: list[Manifest], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(collect, "_asks", lambda ctx: not ctx.yes)
    monkeypatch.setattr(Context, "confirm", lambda self, question: bool(asked.append(question)))
    answer = tlgan_cli("artifact", "gc", "--keep-last", "1", "--delete")
    assert (answer.code, answer.out) == (0, "")
    assert three[0].ref in answer.err
    assert "nothing was deleted" in answer.err
    assert len(asked) == 1
    assert stored() == refs(three)
    tlgan_cli("artifact", "gc", "--keep-last", "1", "--delete", "-y")
    assert (len(asked), stored()) == (1, [three[2].ref])


def test_an_unfinished_collection_is_shown_and_forgotten(tlgan_cli: Tlgan, three: list[Manifest]) -> None:
    store = ArtifactStore().store
    alive = condemn(store, ["blobs/ab/" + "ab" * 32])
    shown = tlgan_cli("artifact", "gc", "--json").data["unfinished"]
    assert shown == [{"id": alive.id, "holder": alive.holder, "started": alive.started, "keys": 1}]
    page = tlgan_cli("artifact", "gc").out
    assert f"  {alive.id}  {socket.gethostname()}:{os.getpid()}  just now  1 key" in page.splitlines()
    refused = tlgan_cli("artifact", "gc", "--forget", alive.id)
    assert (refused.code, refused.out) == (4, "")
    assert "may still be running" in refused.err
    assert len(condemned_lists(store)) == 1
    ended = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True, check=True
    )
    dead = alive.model_copy(update={"id": "dead", "holder": f"{socket.gethostname()}:{ended.stdout.strip()}"})
    store.put(dead.key, to_bytes(dead))
    unknown = tlgan_cli("artifact", "gc", "--forget", "nothing")
    assert (unknown.code, dead.id in unknown.err) == (3, True)
    assert tlgan_cli("artifact", "gc", "--forget", "dead", "--json").data == {"forgotten": ["dead"]}
    assert [one.id for one in condemned_lists(store)] == [alive.id]


def test_checkpoints_of_silent_runs_go_when_asked(tlgan_cli: Tlgan, three: list[Manifest]) -> None:
    store = ArtifactStore().store
    for run, state in (("over", "failed"), ("busy", "running")):
        record = new_record(run, run, "pretrain", state=state)
        Runs(store).create(record)
        store.put(f"runs/{run}/checkpoints/000000001000-1/complete.json", b"{}")
        store.put(f"runs/{run}/checkpoints/000000001000-1/state.safetensors", b"x" * 998)
    assert tlgan_cli("artifact", "gc", "--json").data["runs"] == []
    assert tlgan_cli("artifact", "gc", "--checkpoints-older-than", "14d", "--json").data["runs"] == []
    shown = tlgan_cli("artifact", "gc", "--checkpoints-older-than", "0s")
    lines = shown.out.splitlines()
    assert lines[lines.index("checkpoints that go") + 2].split() == ["over", "failed", "0", "s", "1.0", "kB"]
    assert "--delete carries it out" in shown.err
    done = tlgan_cli("artifact", "gc", "--checkpoints-older-than", "0", "--delete", "--json").data
    assert [(row["run"], row["bytes"]) for row in done["runs"]] == [("over", 1000)]
    assert done["deleted"]["runs"] == {"over": 1000}
    assert list(store.list("runs/over/checkpoints/")) == []
    assert len(list(store.list("runs/busy/checkpoints/"))) == 2
    assert tlgan_cli("artifact", "gc", "--checkpoints-older-than", "2m").code == 2


def test_rm_deletes_what_no_alias_points_at(tlgan_cli: Tlgan, three: list[Manifest]) -> None:
    answer = tlgan_cli("artifact", "rm", three[0].ref, "model:latest", three[1].ref, "--json")
    assert answer.code == 4
    assert [row["ref"] for row in answer.data] == refs(three[:2])
    assert f"{three[2].ref} has the alias latest" in answer.error["message"]
    assert stored() == [three[2].ref]
    assert blob_bytes() == 3006
    again = tlgan_cli("artifact", "rm", three[0].ref)
    assert (again.code, again.out) == (3, "")
    assert f"`tlgan artifact restore {three[0].ref}` brings it back" in again.err
    absent = tlgan_cli("artifact", "rm", "modle:latest", three[1].ref)
    assert (absent.code, 'did you mean "model"?' in absent.err) == (3, True)
    assert tlgan_cli("artifact", "rm").code == 2


def test_restore_says_what_it_can_not_do(tlgan_cli: Tlgan, three: list[Manifest]) -> None:
    tlgan_cli("artifact", "rm", three[0].ref)
    own = next(entry.sha256 for entry in three[0].files if entry.path == "own.txt")
    ArtifactStore().store.delete(f"blobs/{own[:2]}/{own}")
    listed = tlgan_cli("artifact", "ls", "model", "--deleted")
    assert listed.out.splitlines()[1].endswith("no, its files were collected")
    gone = tlgan_cli("artifact", "restore", three[0].ref)
    assert (gone.code, gone.out) == (3, "")
    assert "1 of its files were collected, own.txt for one" in gone.err
    named = tlgan_cli("artifact", "restore", "model:latest")
    assert (named.code, "named by its digest" in named.err) == (2, True)
    absent = tlgan_cli("artifact", "restore", "model@00000000")
    assert (absent.code, f"deleted versions of model: {three[0].ref}" in absent.err) == (3, True)


def test_ls_deleted_of_nothing(tlgan_cli: Tlgan, three: list[Manifest]) -> None:
    answer = tlgan_cli("artifact", "ls", "model", "--deleted", "--json")
    assert (answer.code, answer.data) == (0, [])
    assert "no deleted version of model is left" in answer.err

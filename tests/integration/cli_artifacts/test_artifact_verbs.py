"""`tlgan artifact ls / show / lineage / alias`: what they say of a store, as text and as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from cli_answers import Tlgan

from cluster.store import ArtifactStore, open_store
from cluster.store.local import DirectoryStore
from tlgan.manifest import Manifest


@pytest.fixture
def second(published: tuple[Manifest, Manifest], model_dir: Path) -> Manifest:
    """A newer `digits32` without a recipe; `best` stays where it was."""
    return ArtifactStore().push("digits32", model_dir, kind="gan")


def short(manifest: Manifest) -> str:
    return manifest.digest[:16]


def test_ls_has_the_newest_version_of_each_artifact(
    tlgan_cli: Tlgan, published: tuple[Manifest, Manifest], second: Manifest
) -> None:
    rows = tlgan_cli("artifact", "ls", "--json").data
    assert [row["name"] for row in rows] == ["digits32", "glyphs32"]
    row = rows[0]
    assert (row["ref"], row["digest"], row["kind"], row["versions"]) == (second.ref, second.digest, "gan", 2)
    assert row["aliases"] == {"best": published[1].ref, "latest": second.ref}
    assert (row["bytes"], row["files"], row["created"]) == (second.size, 16, second.created)
    text = tlgan_cli("artifact", "ls")
    assert text.code == 0
    line = text.out.splitlines()[1].split("  ")
    assert line[0] == second.ref
    assert f"latest, best@{published[1].digest[:8]}" in [cell.strip() for cell in line]


def test_ls_of_one_artifact_has_its_versions(
    tlgan_cli: Tlgan, published: tuple[Manifest, Manifest], second: Manifest
) -> None:
    rows = tlgan_cli("artifact", "ls", "digits32", "--json").data
    assert [row["digest"] for row in rows] == [second.digest, published[1].digest]
    assert [list(row["aliases"]) for row in rows] == [["latest"], ["best"]]
    absent = tlgan_cli("artifact", "ls", "digit32")
    assert (absent.code, absent.out) == (3, "")
    assert 'did you mean "digits32"?' in absent.err


def test_ls_asks_for_little(tlgan_cli: Tlgan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many versions there are, only the newest is read, unless all are asked for."""
    for number in range(12):
        (tmp_path / "f.txt").write_text(str(number))
        ArtifactStore().push("one" if number else "two", tmp_path / "f.txt", kind="files")
    asked: list[str] = []
    for method in ("get", "read", "list", "folders", "head"):
        plain = getattr(DirectoryStore, method)

        def counted(self: object, *given: object, plain: Any = plain, method: str = method, **more: object) -> Any:
            asked.append(method)
            return plain(self, *given, **more)

        monkeypatch.setattr(DirectoryStore, method, counted)
    assert len(tlgan_cli("artifact", "ls", "--json").data) == 2
    assert len(asked) <= 12
    asked.clear()
    rows = tlgan_cli("artifact", "ls", "one", "--last", "3", "--json").data
    assert [row["created"] for row in rows] == sorted((row["created"] for row in rows), reverse=True)
    assert len(rows) == 3
    assert len(asked) <= 9
    assert tlgan_cli("artifact", "ls", "--last", "3").code == 2
    assert tlgan_cli("artifact", "ls", "one", "--last", "0").code == 2


def test_ls_of_an_empty_store(tlgan_cli: Tlgan) -> None:
    empty = tlgan_cli("artifact", "ls")
    assert (empty.code, empty.out) == (0, "")
    assert "nothing is published" in empty.err
    assert tlgan_cli("artifact", "ls", "--json").data == []
    assert not Path("store").exists()


def test_a_damaged_manifest_does_not_hide_the_others(
    tlgan_cli: Tlgan, published: tuple[Manifest, Manifest], store_url: str
) -> None:
    store = open_store(store_url)
    key = next(info.key for info in store.list("versions/glyphs32/"))
    store.put(key, b"{}")
    listed = tlgan_cli("artifact", "ls", "--json")
    assert listed.code == 0
    assert [row["problem"] is None for row in listed.data] == [True, False]
    assert "does not match its digest" in listed.err
    assert "damaged" in tlgan_cli("artifact", "ls").out
    assert tlgan_cli("artifact", "verify", "glyphs32:latest").code == 8


def test_show_has_the_fields_that_scripts_rely_on(tlgan_cli: Tlgan, published: tuple[Manifest, Manifest]) -> None:
    parent, child = published
    shown = tlgan_cli("artifact", "show", "digits32:best", "--json").data
    assert (shown["name"], shown["digest"], shown["created"]) == ("digits32", child.digest, child.created)
    assert {key: shown["parents"][0][key] for key in ("ref", "digest")} == {"ref": parent.ref, "digest": parent.digest}
    assert shown["recipe"] == child.recipe
    assert shown["metrics"][0]["name"] == "kid"
    assert shown["files"] == [entry.model_dump(exclude_none=True) for entry in child.files]
    assert set(shown["files"][0]) == {"path", "size", "sha256"}
    assert shown["aliases"] == ["best", "latest"]
    assert (shown["logical_bytes"], shown["stored_bytes"] < child.size) == (child.size, True)


def test_show_reads_well(tlgan_cli: Tlgan, published: tuple[Manifest, Manifest]) -> None:
    out = tlgan_cli("artifact", "show", "digits32:best").out
    for line in (
        f"digest    {published[1].digest}",
        "aliases   best, latest",
        f"  init_from  {published[0].ref}",
        "  data       digits 100 images (outside of the store)",
        "  coverage  34 matched, 0 reshaped, 1 missing tensors of the parent's networks",
        "  data      100 images of 32x32x1",
        "  kid  0.0125  embedded, 1000 generated and 1797 real images, reference efefefef",
        "  transfer: {freeze_d: 2, freeze_g: 0, method: freeze}",
    ):
        assert line in out.splitlines()
    assert "in 16 files; " in out
    assert "null" not in out
    assert max(map(len, out.splitlines())) <= 120


def test_lineage_reaches_the_datasets(tlgan_cli: Tlgan, published: tuple[Manifest, Manifest]) -> None:
    parent, child = published
    tree = tlgan_cli("artifact", "lineage", "digits32:best", "--json").data
    assert [(node["role"], node["digest"]) for node in tree["parents"]] == [
        ("init_from", parent.digest),
        ("data", "cd" * 32),
    ]
    assert tree["parents"][0]["parents"][0]["external"] is True
    lines = tlgan_cli("artifact", "lineage", "digits32:best").out.splitlines()
    assert lines[0].startswith(child.ref)
    assert lines[1].startswith(f"├─ init_from: {parent.ref}  [gan, ")
    assert lines[2].startswith("│  └─ data: glyphs 57000 images  [data outside of the store, sha256 abababab")
    assert lines[3].startswith("└─ data: digits 100 images  [")


def test_lineage_says_which_ancestor_is_gone(
    tlgan_cli: Tlgan, published: tuple[Manifest, Manifest], store_url: str
) -> None:
    store = open_store(store_url)
    for info in list(store.list("versions/glyphs32/")):
        store.delete(info.key)
    answer = tlgan_cli("artifact", "lineage", "digits32:best")
    assert answer.code == 0
    assert f"├─ init_from: {published[0].ref}  [not in the store]" in answer.out.splitlines()


def test_aliases_are_listed_and_moved(tlgan_cli: Tlgan, published: tuple[Manifest, Manifest], second: Manifest) -> None:
    old = published[1]
    rows = tlgan_cli("artifact", "alias", "digits32", "--json").data
    assert [(row["alias"], row["digest"]) for row in rows] == [("best", old.digest), ("latest", second.digest)]
    assert rows[1]["prev"] == old.ref
    assert tlgan_cli("artifact", "alias", "digits32", "best").out == f"{old.ref}\n"
    moved = tlgan_cli("artifact", "alias", "digits32", "best", "latest", "--json")
    assert (moved.code, moved.data["digest"], moved.data["prev"]) == (0, second.digest, old.ref)
    assert ArtifactStore().resolve("digits32:best").digest == second.digest
    for target in (old.digest[:6], f"@{old.digest}", old.ref):
        assert tlgan_cli("artifact", "alias", "digits32", "best", "latest").code == 0
        back = tlgan_cli("artifact", "alias", "digits32", "best", target)
        assert back.out.startswith(f"digits32:best  {old.ref}  (was {second.ref})")


def test_an_alias_moves_only_from_where_it_is_expected(
    tlgan_cli: Tlgan, published: tuple[Manifest, Manifest], second: Manifest
) -> None:
    move = ("artifact", "alias", "digits32", "best", "latest", "--expect")
    refused = tlgan_cli(*move, short(second))
    assert (refused.code, refused.out) == (4, "")
    assert f"points at {short(published[1])}; expected {short(second)}" in refused.err
    assert tlgan_cli(*move, "none").code == 4
    assert ArtifactStore().resolve("digits32:best").digest == published[1].digest
    assert tlgan_cli(*move, short(published[1])).code == 0
    assert tlgan_cli("artifact", "alias", "digits32", "new", "latest", "--expect", "none").code == 0


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("digit32",), 3, 'did you mean "digits32"?'),
        (("digits32", "bset"), 3, 'did you mean "best"?'),
        (("digits32", "best", "0000"), 3, "no version starts with 0000"),
        (("digits32", "best", "absent"), 3, 'has no alias "absent"'),
        (("digits32", "best", "glyphs32:latest"), 2, "an alias points at a version of its own artifact"),
        (("digits32:best", "latest"), 2, "tlgan artifact alias digits32 best latest"),
        (("digits32", "best", "--expect", "none"), 2, "TARGET is missing"),
        (("digits32", "best", "latest", "--expect", "xyz"), 2, "nothing an alias can be expected to point at"),
        (("digits32", "Best!", "latest"), 2, "not valid"),
    ],
)
def test_mistakes_move_nothing(
    tlgan_cli: Tlgan, published: tuple[Manifest, Manifest], arguments: tuple[str, ...], code: int, said: str
) -> None:
    before = ArtifactStore().aliases("digits32")
    answer = tlgan_cli("artifact", "alias", *arguments)
    assert (answer.code, answer.out) == (code, "")
    assert said in answer.err
    assert ArtifactStore().aliases("digits32") == before


def test_the_moves_of_an_alias_are_listed_and_undone(
    tlgan_cli: Tlgan, published: tuple[Manifest, Manifest], second: Manifest
) -> None:
    first = published[1]
    best = ("artifact", "alias", "digits32", "best")
    tlgan_cli(*best, "latest")
    rows = tlgan_cli(*best, "--history", "--json").data
    assert [(row["ref"], row["current"], row["undo"]) for row in rows] == [
        (second.ref, True, False),
        (first.ref, False, False),
    ]
    undone = tlgan_cli(*best, "--undo")
    assert (undone.code, undone.out) == (0, f"digits32:best  {first.ref}  (was {second.ref})\n")
    lines = tlgan_cli(*best, "--history").out.splitlines()
    assert [line.split("  ", 1)[1] for line in lines[1:]] == [
        f"{first.ref}  now, by an undo",
        second.ref,
        first.ref,
    ]
    nothing = tlgan_cli(*best, "--undo")
    assert (nothing.code, nothing.out) == (3, "")
    assert "digits32:best has no move left to undo" in nothing.err
    expected = tlgan_cli("artifact", "alias", "digits32", "latest", "--undo", "--expect", short(first))
    assert (expected.code, expected.out) == (4, "")


def test_a_removed_alias_lets_its_version_go(tlgan_cli: Tlgan, published: tuple[Manifest, Manifest]) -> None:
    parent = published[0]
    latest = ("artifact", "alias", "glyphs32", "latest")
    refused = tlgan_cli("artifact", "rm", parent.ref)
    assert (refused.code, "tlgan artifact alias glyphs32 latest OTHER, or --remove" in refused.err) == (4, True)
    removed = tlgan_cli(*latest, "--remove")
    assert (removed.code, removed.out) == (0, f"glyphs32:latest  removed  (was {parent.ref})\n")
    assert tlgan_cli("artifact", "alias", "glyphs32", "--json").data == []
    assert tlgan_cli("pull", "glyphs32:latest").code == 3
    assert tlgan_cli(*latest, "--remove").code == 3
    assert tlgan_cli("artifact", "rm", parent.ref).code == 0
    gone = tlgan_cli(*latest, "--undo")
    assert (gone.code, f"{parent.ref} is not in" in gone.err) == (3, True)
    assert "not in the store any more" in tlgan_cli(*latest, "--history").out
    tlgan_cli("artifact", "restore", parent.ref)
    assert tlgan_cli(*latest, "--undo", "--json").data["ref"] == parent.ref


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("digits32", "--undo"), "ALIAS is missing"),
        (("digits32", "best", "latest", "--undo"), "TARGET and --undo are two different wishes"),
        (("digits32", "best", "--undo", "--history"), "--history and --undo are two different wishes"),
        (("digits32:best", "--undo"), "tlgan artifact alias digits32 best --undo"),
        (("digits32", "best", "--history", "--expect", "none"), "TARGET is missing"),
        (("digits32", "Best", "--undo"), "not valid"),
    ],
)
def test_wishes_that_do_not_go_together(
    tlgan_cli: Tlgan, published: tuple[Manifest, Manifest], arguments: tuple[str, ...], said: str
) -> None:
    answer = tlgan_cli("artifact", "alias", *arguments)
    assert (answer.code, answer.out) == (2, "")
    assert said in answer.err


def test_the_history_of_what_is_not_there(tlgan_cli: Tlgan, published: tuple[Manifest, Manifest]) -> None:
    for flag in ("--history", "--undo", "--remove"):
        answer = tlgan_cli("artifact", "alias", "digits32", "bset", flag)
        assert (answer.code, answer.out) == (3, "")
        assert 'did you mean "best"?' in answer.err
        assert tlgan_cli("artifact", "alias", "digit32", "best", flag).code == 3


def test_a_single_writer_server_is_said_out_loud(
    tlgan_cli: Tlgan, rclone_server: object, model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rclone_server.use(monkeypatch)  # type: ignore[attr-defined]
    monkeypatch.setenv("TLGAN_STORE", f"s3://{rclone_server.new_bucket()}/p")  # type: ignore[attr-defined]
    pushed = tlgan_cli("push", model_dir, "digits32")
    assert pushed.code == 0
    assert pushed.err.count("warning: single-writer mode on s3://") == 1
    assert pushed.out.startswith("digits32@")
    moved = tlgan_cli("artifact", "alias", "digits32", "best", "latest")
    assert moved.code == 0
    refused = tlgan_cli("artifact", "alias", "digits32", "best", "latest", "--expect", "none")
    assert refused.code == 5
    assert "can't move an alias with an expectation" in refused.err
    undone = tlgan_cli("artifact", "alias", "digits32", "best", "--remove")
    assert (undone.code, undone.out.startswith("digits32:best  removed")) == (0, True)
    assert tlgan_cli("artifact", "alias", "digits32", "best", "--undo").out.startswith("digits32:best  digits32@")


def test_the_listing_is_grouped_under_artifacts(tlgan_cli: Tlgan) -> None:
    out = tlgan_cli("--help").out
    section = out.partition("\nArtifacts:")[2].partition("\n\n")[0]
    assert [word for word in ("pull", "push", "artifact") if f"\n  {word} " in section] == ["pull", "push", "artifact"]
    assert "\n  generate " in out.partition("\nUse:")[2].partition("\n\n")[0]
    group = tlgan_cli("artifact", "--help").out
    assert all(f"\n  {word} " in group for word in ("ls", "show", "lineage", "alias", "verify"))

"""`tlgan artifact lineage --dot`, and what show and lineage say of deleted versions and of shared bytes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from cli_answers import Tlgan

from cluster.store import ArtifactStore
from tlgan.manifest import Manifest, Parent

STRING = r'"(?:[^"\\\n]|\\["\\n])*"'
NODE = re.compile(rf"  ({STRING}) \[label=({STRING})((?:, \w+=\w+)*)\];")
EDGE = re.compile(rf"  ({STRING}) -> ({STRING}) \[label=({STRING})\];")


def graph(text: str) -> tuple[dict[str, tuple[str, str]], list[tuple[str, str, str]]]:
    """Nodes (id -> label and style) and edges; fails on what is not in the language."""
    lines = text.splitlines()
    assert (lines[0], lines[1], lines[-1]) == ("digraph lineage {", "  node [shape=box];", "}")
    nodes, edges = {}, []
    for line in lines[2:-1]:
        if match := EDGE.fullmatch(line):
            edges.append((match[1], match[2], match[3]))
        else:
            match = NODE.fullmatch(line)
            assert match, line
            nodes[match[1]] = (match[2], match[3])
    assert {end for edge in edges for end in edge[:2]} <= nodes.keys()
    return nodes, edges


def push(tmp_path: Path, name: str, *parents: Parent) -> Manifest:
    (tmp_path / name).mkdir(exist_ok=True)
    (tmp_path / name / "f.txt").write_text(name)
    (tmp_path / name / "same.txt").write_text("shared by all")
    return ArtifactStore().push(name, tmp_path / name, kind="files", parents=parents)


def of(manifest: Manifest, role: str = "init_from") -> Parent:
    return Parent(role=role, ref=manifest.ref, digest=manifest.digest)


def test_the_graph_has_every_ancestor_once(tlgan_cli: Tlgan, tmp_path: Path) -> None:
    odd = Parent(role="data", ref='a "quoted" C:\\path\nnext', digest="ab" * 32, external=True)
    base = push(tmp_path, "base", odd)
    gone, lost = push(tmp_path, "gone", of(base)), push(tmp_path, "lost")
    child = push(tmp_path, "child", of(base), of(gone, "teacher"), of(lost, "critic"), odd)
    for manifest in (gone, lost):
        tlgan_cli("artifact", "alias", manifest.name, "latest", "--remove")
        assert tlgan_cli("artifact", "rm", manifest.ref).code == 0
    store = ArtifactStore().store
    for info in list(store.list("deleted/lost/")):
        store.delete(info.key)
    answer = tlgan_cli("artifact", "lineage", "child:latest", "--dot")
    assert answer.code == 0
    nodes, edges = graph(answer.out)
    assert nodes[f'"external {"ab" * 32}"'] == (
        '"a \\"quoted\\" C:\\\\path next\\noutside of the store, sha256 abababababababab"',
        ", shape=ellipse",
    )
    assert nodes[f'"{gone.digest}"'] == (f'"{gone.ref}\\nfiles, deleted"', ", style=filled, fillcolor=lightgrey")
    assert nodes[f'"{lost.digest}"'] == (f'"{lost.ref}\\nnot in the store"', ", style=dashed")
    created = child.created[:19].replace("T", " ")
    assert nodes[f'"{child.digest}"'] == (f'"{child.ref}\\nfiles, {created}"', "")
    assert len(nodes) == 5
    assert sorted(edge[2] for edge in edges) == [
        '"critic"',
        '"data"',
        '"data"',
        '"init_from"',
        '"init_from"',
        '"teacher"',
    ]
    assert (f'"{base.digest}"', f'"{child.digest}"', '"init_from"') in edges
    assert tlgan_cli("artifact", "lineage", "child:latest", "--dot", "--json").data == {"dot": answer.out[:-1]}
    assert (
        f"├─ teacher: {gone.ref}  [files, {gone.created[:19].replace('T', ' ')}, deleted]"
        in tlgan_cli("artifact", "lineage", "child:latest").out
    )


def test_a_deleted_version_is_shown_as_such(tlgan_cli: Tlgan, tmp_path: Path) -> None:
    base = push(tmp_path, "base")
    tlgan_cli("artifact", "alias", "base", "latest", "--remove")
    assert tlgan_cli("artifact", "show", base.ref, "--json").data["deleted"] is None
    tlgan_cli("artifact", "rm", base.ref)
    shown = tlgan_cli("artifact", "show", base.ref, "--json")
    assert shown.code == 0
    assert (shown.data["digest"], shown.data["aliases"], shown.data["deleted"][:2]) == (base.digest, [], "20")
    assert f"UTC; tlgan artifact restore {base.ref}" in tlgan_cli("artifact", "show", base.ref).out
    assert tlgan_cli("artifact", "lineage", base.ref, "--json").data["deleted"] is True
    assert tlgan_cli("artifact", "lineage", base.ref).out.endswith(", deleted]\n")
    for verb in (("pull",), ("artifact", "verify"), ("artifact", "rm")):
        answer = tlgan_cli(*verb, base.ref)
        assert (answer.code, f"`tlgan artifact restore {base.ref}` brings it back" in answer.err) == (3, True)
    named = tlgan_cli("pull", "base:latest")
    assert (named.code, "all versions of base were deleted" in named.err) == (3, True)


def test_show_says_what_is_shared(tlgan_cli: Tlgan, tmp_path: Path) -> None:
    base = push(tmp_path, "base")
    push(tmp_path, "child", of(base))
    shown = tlgan_cli("artifact", "show", "child:latest", "--json").data
    assert (shown["logical_bytes"], shown["stored_bytes"], shown["shared_bytes"]) == (18, 5, 13)
    assert (
        "18 B in 2 files; 5 B stored, 13 B shared with ancestors" in tlgan_cli("artifact", "show", "child:latest").out
    )
    assert "17 B in 2 files\n" in tlgan_cli("artifact", "show", "base:latest").out


@pytest.mark.parametrize("bad", ["base", "bse:latest", "base:lates"])
def test_references_that_name_nothing(tlgan_cli: Tlgan, tmp_path: Path, bad: str) -> None:
    push(tmp_path, "base")
    answer = tlgan_cli("artifact", "lineage", bad, "--dot")
    assert (answer.code, answer.out) == (2 if ":" not in bad else 3, "")

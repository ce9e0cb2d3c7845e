"""A published model's directory: rebuilt from itself alone, and never trusted."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_gan import LATENT_DIM, pair

import tlgan
from tlgan.artifact import describe, load_network, save_networks
from tlgan.errors import IntegrityError, NotFound, SpecError


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    G, D = pair()
    save_networks(tmp_path / "model", {"G": G, "D": D, "G_ema": pair(seed=1)[0]}, type="gan", extra={"note": "kept"})
    return tmp_path / "model"


def edit(saved: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    file = saved / "model.json"
    document = json.loads(file.read_text())
    change(document)
    file.write_text(json.dumps(document))


def test_one_file_a_block_and_one_for_vectors(saved: Path) -> None:
    files = sorted(str(f.relative_to(saved)) for f in saved.rglob("*.*") if f.is_file())
    blocks = {"G": ["b4", "b8", "b16", "b32"], "D": ["b32", "b16", "b8", "b4"], "G_ema": ["b4", "b8", "b16", "b32"]}
    files_of = {w: [*names, "vectors"] for w, names in blocks.items()}
    assert files == sorted(["model.json", *(f"{w}/{f}.safetensors" for w, names in files_of.items() for f in names)])
    document = describe(saved)
    assert document["note"] == "kept"
    assert document["type"] == "gan"
    assert {which: list(about["blocks"]) for which, about in document["networks"].items()} == {
        which: sorted(names) for which, names in files_of.items()
    }
    weights, vectors = (load_file(saved / "G" / f"{part}.safetensors") for part in ("b8", "vectors"))
    assert all(name.startswith("blocks.b8.") and tensor.dim() > 1 for name, tensor in weights.items())
    assert all(tensor.dim() < 2 for tensor in vectors.values())
    assert {name.split(".")[1] for name in vectors} == {"b4", "b8", "b16", "b32"}


def test_models_with_all_of_a_block_in_one_file_load(saved: Path) -> None:
    """As they were saved before vectors had a file of their own."""
    expected = load_network(saved, "G").state_dict()
    vectors = load_file(saved / "G" / "vectors.safetensors")
    for block in ("b4", "b8", "b16", "b32"):
        file = saved / "G" / f"{block}.safetensors"
        own = {name: tensor for name, tensor in vectors.items() if name.startswith(f"blocks.{block}.")}
        save_file(load_file(file) | own, file)
    edit(saved, lambda document: document["networks"]["G"]["blocks"].pop("vectors"))
    (saved / "G" / "vectors.safetensors").unlink()
    loaded = load_network(saved, "G").state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in expected.items())


def test_equal_networks_give_equal_bytes(saved: Path, tmp_path: Path) -> None:
    G, D = (net.to(memory_format=torch.channels_last) for net in pair())
    save_networks(tmp_path / "again", {"G": G, "D": D}, type="gan")
    for file in (tmp_path / "again").rglob("*.safetensors"):
        assert file.read_bytes() == (saved / file.relative_to(tmp_path / "again")).read_bytes()


def test_the_generator_is_the_moving_average_in_eval_mode(saved: Path) -> None:
    g = tlgan.load_generator(saved)
    assert not g.training
    expected = pair(seed=1)[0].eval()
    z = torch.randn(3, LATENT_DIM)
    torch.testing.assert_close(g(z), expected(z))
    assert tlgan.generate(g, n=2).shape == (2, 1, 32, 32)


def test_loading_leaves_the_global_generator_alone(saved: Path) -> None:
    before = torch.get_rng_state()
    tlgan.load_generator(str(saved))
    assert torch.equal(torch.get_rng_state(), before)


def test_what_is_not_there_is_named(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"holds no model\.json"):
        tlgan.load_generator(tmp_path)
    with pytest.raises(NotFound, match="holds no network C; it holds D, G, G_ema"):
        load_network(saved, "C")


def test_a_newer_format_is_refused(saved: Path) -> None:
    edit(saved, lambda d: (d.update(format=2), d.pop("networks")))
    with pytest.raises(SpecError, match="has format 2; this tlgan reads 1"):
        tlgan.load_generator(saved)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"x"', "{}", '{"format": 1}', '{"format": 1, "networks": 3}'])
def test_a_damaged_description_is_an_integrity_error(saved: Path, text: str) -> None:
    (saved / "model.json").write_text(text)
    with pytest.raises(IntegrityError, match=r"model\.json"):
        tlgan.load_generator(saved)


def test_a_description_that_is_no_text_is_an_integrity_error(saved: Path) -> None:
    (saved / "model.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(IntegrityError, match=r"model\.json"):
        tlgan.load_generator(saved)


@pytest.mark.parametrize(
    "change",
    [
        lambda about: about.pop("arch"),
        lambda about: about.pop("config"),
        lambda about: about.pop("blocks"),
        lambda about: about.update(arch="no-such-network"),
        lambda about: about.update(arch=None),
        lambda about: about.update(role="X"),
        lambda about: about.update(blocks=["G_ema/b4.safetensors"]),
        lambda about: about.update(config={}),
        lambda about: about["config"].update(unknown=1),
        lambda about: about["config"].update(width="wide"),
        lambda about: about["config"].update(width=-4),
        lambda about: about["config"].update(resolution=0),
        lambda about: about["config"].update(width=8),
        lambda about: about["blocks"].pop("b8"),
        lambda about: about["blocks"].update(b8="G_ema/none.safetensors"),
        lambda about: about["blocks"].update(b8="G_ema"),
        lambda about: about["blocks"].update(b8=None),
        lambda about: about["blocks"].update(b8="D/b8.safetensors"),
    ],
)
def test_a_description_that_does_not_fit_is_an_integrity_error(saved: Path, change: Callable[[dict], Any]) -> None:
    edit(saved, lambda d: change(d["networks"]["G_ema"]))
    with pytest.raises(IntegrityError) as error:
        tlgan.load_generator(saved)
    assert str(saved) in str(error.value)


@pytest.mark.parametrize("way", ["relative", "absolute", "through a link"])
def test_a_file_outside_is_never_read(saved: Path, tmp_path: Path, way: str) -> None:
    outside = tmp_path / "outside.safetensors"
    outside.write_bytes((saved / "G_ema" / "b8.safetensors").read_bytes())
    if way == "through a link":
        (saved / "link").symlink_to(tmp_path)
    name = {
        "relative": "../outside.safetensors",
        "absolute": str(outside),
        "through a link": "link/outside.safetensors",
    }
    edit(saved, lambda d: d["networks"]["G_ema"]["blocks"].update(b8=name[way]))
    with pytest.raises(IntegrityError, match="outside of the artifact"):
        tlgan.load_generator(saved)


@pytest.mark.parametrize("damage", ["missing", "empty", "truncated", "garbage"])
def test_a_damaged_block_is_an_integrity_error(saved: Path, damage: str) -> None:
    block = saved / "G_ema" / "b16.safetensors"
    whole = block.read_bytes()
    if damage == "missing":
        block.unlink()
    else:
        block.write_bytes({"empty": b"", "truncated": whole[:-5], "garbage": b"\x80\x04" + whole}[damage])
    with pytest.raises(IntegrityError, match=r"b16\.safetensors can't be read") as error:
        tlgan.load_generator(saved)
    assert error.value.hint == "pull the artifact again"


def test_a_block_with_other_tensors_is_an_integrity_error(saved: Path) -> None:
    save_file({"blocks.b16.x": torch.zeros(1)}, saved / "G_ema" / "b16.safetensors")
    with pytest.raises(IntegrityError, match="does not fit its own description"):
        tlgan.load_generator(saved)


def test_state_outside_of_blocks_is_never_lost_in_silence(tmp_path: Path) -> None:
    G, _ = pair()
    G.register_buffer("stray", torch.zeros(1))
    with pytest.raises(AssertionError, match="stray"):
        save_networks(tmp_path, {"G": G}, type="gan")

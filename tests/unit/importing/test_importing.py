"""Networks from other programs' files: the same images come out, and nothing that is in a file is run."""

from __future__ import annotations

import argparse
import json
import os
import pickle
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from foreign import FILTER, Node, independent, official, official_modules, put, write_official

from cluster.store import ArtifactStore
from jobs.cli import main
from tlgan.artifact import load_network
from tlgan.errors import IntegrityError, NotFound
from tlgan.importing import KNOWN, read_networks, recipe_for
from tlgan.importing.pickles import _reconstruct, read_checkpoint
from tlgan.models import seeded
from tlgan.models.stylegan2 import Discriminator, Generator
from tlgan.recipe import Recipe

SMALL: dict[str, Any] = {"resolution": 32, "channels": 3, "width": 4, "max_width": 8}


def shaken(network: Any) -> Any:
    rng = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for value in network.state_dict().values():
            value.add_(0.2 * torch.randn(value.shape, generator=rng))
    return network.eval().requires_grad_(False)


@pytest.fixture(name="G")
def generator_fixture() -> Generator:
    with seeded(0):
        return shaken(Generator(**SMALL, latent_dim=6, style_dim=5, mapping_layers=3))


@pytest.fixture(name="D")
def discriminator_fixture() -> Discriminator:
    with seeded(1):
        return shaken(Discriminator(**SMALL))


@pytest.fixture
def theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The modules that a pickle of the authors names can be imported, as on a machine that has their program."""
    for name, module in official_modules().items():
        monkeypatch.setitem(sys.modules, name, module)


@pytest.fixture
def pkl(G: Generator, D: Discriminator, theirs: None, tmp_path: Path) -> Path:
    write_official(tmp_path / "net.pkl", G=G, D=D, G_ema=G)
    return tmp_path / "net.pkl"


@pytest.fixture
def pt(G: Generator, D: Discriminator, tmp_path: Path) -> Path:
    content = {
        **independent(G, D),
        "args": argparse.Namespace(size=32),
        "latent_avg": G.state_dict()["blocks.mapping.average"],
    }
    torch.save(content, tmp_path / "net.pt")
    return tmp_path / "net.pt"


@pytest.mark.parametrize("kind", ["pkl", "pt"])
def test_the_networks_are_those_of_the_file(
    kind: str, G: Generator, D: Discriminator, request: pytest.FixtureRequest
) -> None:
    networks, origin = read_networks(request.getfixturevalue(kind))
    assert set(networks) == {"G", "D", "G_ema"}
    assert origin.format == {"pkl": "nvlabs", "pt": "rosinality"}[kind]
    z, x = torch.randn(3, 6), torch.randn(4, 3, 32, 32)
    torch.testing.assert_close(networks["G_ema"](z), G(z), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(networks["G"].truncated(z, 0.5), G.truncated(z, 0.5), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(networks["D"](x), D(x), rtol=1e-5, atol=1e-5)
    assert networks["G"].config == G.config
    assert networks["D"].config == D.config


def test_the_average_style_is_made_up_when_there_is_none(pt: Path, G: Generator) -> None:
    content = torch.load(pt, weights_only=False)
    del content["latent_avg"]
    torch.save(content, pt)
    average = read_networks(pt)[0]["G_ema"].state_dict()["blocks.mapping.average"]
    torch.testing.assert_close(average, G.styles(torch.randn(50_000, 6))[:, 0].mean(0), rtol=0.02, atol=0.02)


def test_clamps_are_taken_over(G: Generator, theirs: None, tmp_path: Path) -> None:
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"G_ema": official(G, clamp=0.5)}))
    clamped = read_networks(tmp_path / "a.pkl")[0]["G_ema"]
    assert clamped.config["clamp"] == 0.5
    again = Generator(**clamped.config)
    again.load_state_dict(G.state_dict())
    z = torch.randn(2, 6)
    assert torch.equal(clamped(z), again.eval()(z))
    assert not torch.equal(clamped(z), G(z))


def test_conditional_networks_and_their_plain_discriminator(theirs: None, tmp_path: Path) -> None:
    """As CIFAR-10's: labels in both mapping networks, no shortcuts in D."""
    classes = [str(number) for number in range(5)]
    with seeded(4):
        G = shaken(Generator(**SMALL, latent_dim=6, style_dim=5, mapping_layers=2, classes=classes))
        D = shaken(Discriminator(**SMALL, classes=classes, mapping_layers=3, residual=False))
    write_official(tmp_path / "net.pkl", G=G, D=D, G_ema=G)
    networks, _ = read_networks(tmp_path / "net.pkl")
    z, x, labels = torch.randn(6, 6), torch.randn(6, 3, 32, 32), torch.tensor([0, 1, 2, 3, 4, 0])
    torch.testing.assert_close(networks["G_ema"](z, labels=labels), G(z, labels=labels), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(networks["D"](x, labels=labels), D(x, labels=labels), rtol=1e-5, atol=1e-5)
    assert networks["G_ema"].config == G.config
    assert networks["D"].config == D.config
    assert networks["G_ema"].classes == classes
    assert recipe_for(networks["G_ema"])["model"]["conditional"] is True


@pytest.mark.parametrize("group", [1, 2, 8, None])
def test_groups_of_the_minibatch_deviation_are_taken_over(group: int | None, theirs: None, tmp_path: Path) -> None:
    """The authors' presets have 4, 8 and 32, and networks of the TensorFlow version all of a batch."""
    with seeded(5):
        D = shaken(Discriminator(**SMALL, deviation_group=group))
        G = shaken(Generator(**SMALL, latent_dim=6, style_dim=5, mapping_layers=1))
    write_official(tmp_path / "net.pkl", D=D, G_ema=G)
    found = read_networks(tmp_path / "net.pkl")[0]["D"]
    assert found.config == D.config
    x = torch.randn(8, 3, 32, 32)
    four = Discriminator(**{**D.config, "deviation_group": 4})
    four.load_state_dict(D.state_dict())
    torch.testing.assert_close(found(x), D(x), rtol=1e-5, atol=1e-5)
    assert not torch.allclose(four.eval()(x), D(x), rtol=1e-4)


def test_a_clamp_does_not_limit_shortcuts() -> None:
    """In the authors' D only the convolutions with a bend are clamped; what a shortcut carries grows with its input."""
    block = Discriminator(**SMALL, clamp=0.5).blocks["b32"]
    x = torch.randn(2, 4, 32, 32)
    assert block.skip(10 * x).abs().max() > 0.5
    torch.testing.assert_close(block.skip(10 * x), 10 * block.skip(x))


def test_files_are_known_by_what_is_in_them(pkl: Path, pt: Path, G: Generator, tmp_path: Path) -> None:
    for path, name in ((pkl, "a.pt"), (pt, "b.pkl"), (pt, "c")):
        read = read_networks(path.rename(tmp_path / name))[0]
        torch.testing.assert_close(read["G_ema"].state_dict(), G.state_dict(), rtol=1e-5, atol=1e-5)
        path = (tmp_path / name).rename(path)
    torch.save(read_checkpoint(pt), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert read_networks(tmp_path / "old.pt")[1].format == "rosinality"


BOMB = "from tlgan.importing.pickles import read_pickle; from pathlib import Path; import resource, sys;" + (
    "resource.setrlimit(resource.RLIMIT_AS, (8 << 30,) * 2); read_pickle(Path(sys.argv[1]))"
)


def test_small_files_do_not_take_large_memory(tmp_path: Path) -> None:
    path = tmp_path / "bomb.pkl"
    path.write_bytes(
        b"\x80\x02Nr" + struct.pack("<I", 2**32 - 1) + b"."
    )  # the reader in C makes an array of that length
    subprocess.run([sys.executable, "-c", BOMB, str(path)], check=True, capture_output=True)
    repeated = torch.ones(1).expand(1 << 40)
    path.write_bytes(pickle.dumps({"G_ema": repeated}))
    with pytest.raises(IntegrityError, match="larger than what is stored of it"):
        read_networks(path)


def test_a_file_can_not_change_what_reads_it(tmp_path: Path) -> None:
    before = _reconstruct.__defaults__, dict(vars(_reconstruct))
    function = b"ctorch_utils.persistence\n_reconstruct_persistent_obj\n"
    (tmp_path / "a.pkl").write_bytes(function + b"}(S'__defaults__'\n(I1\ntu" + b"b.")
    with pytest.raises(IntegrityError):
        read_networks(tmp_path / "a.pkl")
    assert (_reconstruct.__defaults__, vars(_reconstruct)) == before


class Trap:
    """Writes a file when it is unpickled by somebody who runs what he reads."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.place),)


def _old_storage(trap: Any) -> Any:
    class Storage:
        def __reduce__(self) -> Any:
            return torch.storage._load_from_bytes, (pickle.dumps(trap),)

    return Storage()


@pytest.mark.parametrize("where", ["alone", "beside", "inside a state", "inside a storage"])
@pytest.mark.parametrize("suffix", ["pkl", "pt"])
def test_traps_are_refused_and_do_not_snap(where: str, suffix: str, G: Generator, theirs: None, tmp_path: Path) -> None:
    trap = Trap(tmp_path / "caught")
    node = official(G)
    if where == "inside a state":
        node.secret = trap
    storage = {"G_ema": node, "x": _old_storage(trap)}
    content: Any = {"alone": trap, "beside": {"G_ema": node, "x": trap}, "inside a storage": storage}.get(
        where, {"G_ema": node}
    )
    if suffix == "pt":
        torch.save(content, tmp_path / "net.pt")
    else:
        (tmp_path / "net.pkl").write_bytes(pickle.dumps(content))
    with pytest.raises(IntegrityError, match=r"can't be read as networks") as error:
        read_networks(tmp_path / f"net.{suffix}")
    assert "weights_only" not in str(error.value)  # torch would tell how to run what is in there
    assert not (tmp_path / "caught").exists()


def test_damaged_files_are_refused(pkl: Path, pt: Path) -> None:
    for path in (pkl, pt):
        whole = path.read_bytes()
        for damaged in (b"", whole[: len(whole) // 2], b"\x80\x04K\x01.", b"not a pickle at all"):
            path.write_bytes(damaged)
            with pytest.raises(IntegrityError):
                read_networks(path)


@pytest.mark.parametrize(
    ("content", "message", "hint"),
    [
        (b"<!DOCTYPE html><html>", "is a web page, no networks", "open it in a browser"),
        (b"\x80\x02cdnnlib.tflib.network\nNetwork\n.", "it names dnnlib.tflib.network.Network", "legacy.py"),
        (b"", "it is empty, cut off or damaged", "get the file from its authors again"),
        (b"PK\x03\x04" + bytes(100), "it is empty, cut off or damaged", "get the file from its authors again"),
    ],
)
def test_what_people_take_for_networks(content: bytes, message: str, hint: str, tmp_path: Path) -> None:
    for name in ("a.pkl", "a.pt"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(IntegrityError, match=message) as error:
            read_networks(tmp_path / name)
        assert hint in (error.value.hint or "")


def test_other_networks_are_refused_by_name(G: Generator, D: Discriminator, theirs: None, tmp_path: Path) -> None:
    def refused(node: Node, message: str, which: str = "G_ema") -> None:
        content = {"G_ema": official(G), which: node}
        (tmp_path / "a.pkl").write_bytes(pickle.dumps(content))
        with pytest.raises(IntegrityError, match=message):
            read_networks(tmp_path / "a.pkl")

    node = official(G)
    put(node, "mapping.embed.weight", torch.ones(5, 10))
    refused(node, "1 tensors missing, blocks.mapping.embed.bias|has the shape")
    node = official(G)
    put(node, "synthesis.b32.skip.weight", torch.ones(4, 8, 1, 1))
    refused(node, "1 tensors that are not known, synthesis.b32.skip.weight")
    node = official(G)
    node.synthesis.b32.conv0.resample_filter = FILTER.roll(1, 0)
    refused(node, "another filter")
    node = official(G)
    node.mapping.fc1.bias_gain = 1.0
    refused(node, "mapping.fc1 has the learning rate 1.0")
    node = official(G)
    del node.synthesis.b16.conv1.bias
    refused(node, "1 tensors missing, blocks.b16.conv1.bias")
    node = official(G)
    node.synthesis.b16.conv1.bias = torch.nn.Parameter(torch.ones(3))
    refused(node, r"blocks.b16.conv1.bias has the shape \[3\]; expected \[8\]")
    node = official(G)
    node.synthesis.b16.conv1.activation = "relu"
    refused(node, "synthesis.b16.conv1 has the activation 'relu'")
    node = official(G, clamp=-1.0)
    refused(node, "clamps activations at -1.0")
    node = official(G)
    put(node, "synthesis.b1048576.torgb.weight", torch.ones(3, 4, 1, 1))
    refused(node, r"has levels of \[8, 16, 32, 1048576\] px")
    node = official(G)
    put(node, "synthesis.input.freqs", torch.ones(3, 2))
    refused(node, "is a StyleGAN3")
    node = official(G)
    node.synthesis.b16.conv1.weight = torch.nn.Parameter(torch.ones(()))
    refused(node, "can't be read|has the shape")
    with seeded(6):
        grey = Discriminator(**{**SMALL, "channels": 1})
    refused(official(grey), "D reads images of 1 channels; G_ema draws 3", which="D")
    node = official(D)
    node.b4.out.bias = torch.nn.Parameter(torch.full((1,), float("nan")))
    refused(node, "no finite numbers", which="D")


def test_a_known_file_that_is_not_there_says_where_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="fetches no networks by itself") as error:
        read_networks(tmp_path / "ffhq.pkl")
    assert "download ffhq.pkl (FFHQ faces, ADA, 1024 px) from" in str(error.value.hint)
    with pytest.raises(NotFound) as error:
        read_networks(tmp_path / "fhq.pkl")
    assert "ffhq.pkl" in str(error.value.hint)
    assert len({known.file for known in KNOWN}) == len(KNOWN)


def test_a_known_name_with_another_size_is_refused(pkl: Path) -> None:
    with pytest.raises(IntegrityError, match=r"draws 32 px; ffhq.pkl \(FFHQ faces, ADA\) draws 1024"):
        read_networks(pkl.rename(pkl.with_name("ffhq.pkl")))


def test_a_recipe_can_start_from_it(G: Generator) -> None:
    sections = recipe_for(G)
    recipe = Recipe.model_validate({"data": {"source": "photos"}, "train": {"kimg": 1}, **sections})
    assert (recipe.model.arch, recipe.model.max_width, recipe.model.mapping_layers) == ("stylegan2", 8, 3)
    assert recipe.loss.r1 == pytest.approx(0.0064)


def test_import_publishes_networks_that_can_be_tuned(
    pkl: Path, G: Generator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TLGAN_STORE", (tmp_path / "store").as_uri())
    assert main(["import", str(pkl), "small", "--licence", "CC0", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["origin"]["licence"] == "CC0"
    assert printed["imported"]["G_ema"] == len(G.state_dict())
    path = ArtifactStore().pull("small:latest")
    z = torch.randn(2, 6)
    torch.testing.assert_close(load_network(path, "G_ema")(z), G(z), rtol=1e-5, atol=1e-5)
    spec = {"kind": "finetune", "name": "t", "init_from": {"artifact": "small:latest"}, "output": {"artifact": "tuned"}}
    spec |= {"data": {"source": "photos", "resolution": 32, "crops": 8}, "train": {"kimg": 0.008, "batch_size": 4}}
    spec |= {"transfer": {"method": "freeze", "freeze_g": 1, "freeze_d": 2}}
    Path("tune.yaml").write_text(json.dumps(spec))
    assert main(["run", "tune.yaml", "--json"]) == 0, capsys.readouterr().err
    tuned = ArtifactStore().show("tuned:latest")
    assert tuned["stored_bytes"] < tuned["logical_bytes"]


def test_the_list_and_a_call_without_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["import", "--list"]) == 0
    assert "afhqcat.pkl" in capsys.readouterr().out
    assert main(["import"]) == 2
    assert "tlgan import FILE NAME" in capsys.readouterr().err

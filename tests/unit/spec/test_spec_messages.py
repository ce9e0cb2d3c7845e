"""Every kind of mistake in one sentence with its place, and many at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from spec_texts import EVALUATE, FINETUNE, PRETRAIN, SWEEP

from cluster.specfile import check_files, load_spec
from tlgan import registry
from tlgan.errors import SpecError

METRICS = ", ".join(registry.METRICS)
Mistakes = Callable[..., list[str]]

VALUES = [
    ("train.kimg", "fast", 'train.kimg: expected a number > 0, received "fast"'),
    ("train.kimg", "-1", "train.kimg: expected a number > 0, received -1"),
    ("train.kimg", ".inf", "train.kimg: expected a number > 0, received inf"),
    ("train.kimg", "null", "train.kimg: expected a number > 0, received nothing"),
    ("train.kimg", "[1]", "train.kimg: expected a number > 0, received [1]"),
    ("train.kimg", '"8"', 'train.kimg: expected a number > 0, received "8" (drop the quotes)'),
    ("train.kimg", "1_000", 'train.kimg: expected a number > 0, received "1_000" (write 1000)'),
    ("train.n_critic", "0", "train.n_critic: expected a whole number from 1 to 100, received 0"),
    ("train.seed", "1.5", "train.seed: expected a whole number >= 0, received 1.5"),
    ("train.seed", "true", "train.seed: expected a whole number >= 0, received true"),
    ("train.beta1", "1", "train.beta1: expected a number >= 0 and < 1, received 1"),
    ("train.precision", "fp23", 'train.precision: expected one of: fp32, bf16, auto; received "fp23" (did you mean "fp32"?)'),
    ("data.limit", "0", "data.limit: expected a whole number >= 1, received 0"),
    ("data.flip", "yes", 'data.flip: expected true or false, received "yes" (write true)'),
    ("data.classes", "[]", "data.classes: expected a list of words, at least 1, received []"),
    ("data.channels", "true", "data.channels: expected a number, received true"),
    ("data.labels", "{a: 1}", "data.labels: expected text, received a mapping"),
    ("metrics", "kid", 'metrics: expected a list of words, received "kid" (write [kid])'),
    ("metrics", "[kidd]", f'metrics: unknown metric "kidd"; expected one of: {METRICS} (did you mean "kid"?)'),
    ("metrics", "[kid, kid]", "metrics: a metric is named twice: kid, kid"),
    ("loss.path_length", "2.0", "loss.path_length: path_length is for networks with styles; dcgan has none"),
    ("loss.name", "hing", 'loss.name: unknown loss "hing"; expected one of: minimax, nonsaturating, least_squares, hinge,'
     ' wasserstein, relativistic (did you mean "hinge"?)'),
    ("model.resolution", "48", "model.resolution: dcgan is built for resolutions 32, 64, 128; received 48"),
    ("version", "2", "version: expected 1; received 2"),
    ("train", "null", "train: expected a mapping, received nothing"),
    ("data.sharded", "true", "data.sharded: needs a dataset `artifact`, packed by `tlgan data pack SOURCE NAME --shuffle`"),
    ("evaluation.data", "{artifact: 'a:b', sharded: true}", "evaluation.data: only the images that a GAN trains on can be"
     " sharded; leave `sharded` out"),
    ("data.artifact", "x", "data.artifact: expected exactly one of `source` and `artifact`"),
    ("output.artifact", "con.x", "output.artifact: artifact name 'con.x' is not valid: 'con.x' is a device on Windows"),
    ("resources.workers", "-1", "resources.workers: expected a whole number from 0 to 4096, received -1"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "value", "message"), VALUES, ids=[f"{p}={v}" for p, v, _ in VALUES])
def test_wrong_values(mistakes: Mistakes, path: str, value: str, message: str) -> None:
    assert f"--set {path}={value}: {message}" in mistakes(PRETRAIN, f"{path}={value}")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("train:", "trian:", 'spec.yaml:6:1: trian: unknown key "trian" (did you mean "train"?)'),
        ("train:", "trian:", "spec.yaml:1:1: train: required, but missing (expected a mapping)"),
        ("kimg: 8", "kim: 8", 'spec.yaml:6:9: train.kim: unknown key "kim" (did you mean "kimg"?)'),
        ("kimg: 8, ", "", "spec.yaml:6:8: train.kimg: required, but missing (expected a number > 0)"),
        ("version: 1", "lr_d: 1", 'spec.yaml:1:1: lr_d: unknown key "lr_d" (did you mean "train.lr_d"?)'),
        ("{arch: dcgan}", "{seed: 1, metrics: [kid]}",
         'spec.yaml:5:18: model.metrics: unknown key "metrics" (did you mean "metrics" at the top level?)'),
        ("name: glyphs32", "name: My Glyphs!", 'spec.yaml:3:7: name: expected a name of lower-case letters, digits, ".", "_"'
         ' and "-", received "My Glyphs!" (did you mean "my-glyphs"?)'),
        ("name: glyphs32", "name: 32", 'spec.yaml:3:7: name: expected a name of lower-case letters, digits, ".", "_" and "-",'
         ' received 32 (put it in quotes: "32")'),
        ("kind: pretrain", "kind: pretrian", "spec.yaml:2:7: kind: expected one of: pretrain, finetune, classifier, sweep,"
         ' evaluate, generate, pipeline; received "pretrian" (did you mean "pretrain"?)'),
        ("kind: pretrain", "knid: pretrain", "spec.yaml:1:1: kind: required, but missing; expected one of: pretrain, finetune,"
         ' classifier, sweep, evaluate, generate, pipeline (did you mean "kind"?)'),
        ("kind: pretrain", "kind: [a]", "spec.yaml:2:7: kind: expected one of: pretrain, finetune, classifier, sweep,"
         " evaluate, generate, pipeline; received ['a']"),
        ("output: {artifact: glyphs32}", "output: glyphs32",
         'spec.yaml:7:9: output: expected a mapping, received "glyphs32"'),
    ],
)  # fmt: skip
def test_wrong_keys_and_places(mistakes: Mistakes, old: str, new: str, message: str) -> None:
    assert message in mistakes(PRETRAIN.replace(old, new))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.resolution=64", "expected 32, as model.resolution; received 64"),
        ("model.channels=3", "expected 1, as the images of glyphs have; received 3 (data.channels: 3 converts the images)"),
        ("resources.workers=3", "expected a multiple of resources.workers (3), received 64 (write 63 or 66)"),
        ("evaluation.extractor=classifier:features",
         'artifact reference "features" does not say which version (write features:latest or another alias, or features@<digest>)'),
        ("evaluation.data={artifact: packed}",
         'artifact reference "packed" does not say which version (write packed:latest or another alias, or packed@<digest>)'),
    ],
)  # fmt: skip
def test_what_fits_alone_but_not_together(mistakes: Mistakes, override: str, message: str) -> None:
    found = mistakes(PRETRAIN.replace("{arch: dcgan}", "{resolution: 32}"), override)
    assert [text for text in found if text.endswith(message)] == found
    assert len(found) == 1


SHARDED = PRETRAIN.replace("source: glyphs", "artifact: 'glyphs:latest', sharded: true")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("metrics=[kid]", "metrics need a reference that is not sharded; set evaluation.data to a smaller set"),
        ("checkpoint.best=kid", "metrics need a reference that is not sharded; set evaluation.data to a smaller set"),
        (
            "guards={metrics: {kid: '< 1'}}",
            "metrics need a reference that is not sharded; set evaluation.data to a smaller set",
        ),
        ("metrics=[copy_rate]", "copy_rate looks at all images trained on; take it afterwards, by `kind: evaluate`"),
    ],
)
def test_what_is_measured_while_training_on_sharded_data(mistakes: Mistakes, override: str, message: str) -> None:
    assert "sharded" in SHARDED
    more = ["evaluation.data={source: digits}"] if "copy_rate" in override else []
    assert [text.partition("data.sharded: ")[2] for text in mistakes(SHARDED, override, *more)] == [message]
    assert mistakes(SHARDED, "metrics=[kid]", "evaluation.data={source: digits}") == []
    itself = mistakes(SHARDED, "metrics=[kid]", "evaluation.data={artifact: 'glyphs:latest', limit: 9}")
    assert [text.endswith("set evaluation.data to a smaller set, packed by itself") for text in itself] == [True]


def test_a_search_measures_so_its_sharded_base_needs_a_reference(mistakes: Mistakes) -> None:
    data = "base.data={artifact: 'glyphs:latest', sharded: true}"
    (told,) = mistakes(SWEEP, data)
    assert told.endswith(
        "base.data.sharded: metrics need a reference that is not sharded; set evaluation.data to a smaller set"
    )
    assert mistakes(SWEEP, data, "base.evaluation.data={source: digits}") == []


def test_data_decides_the_size_only_where_the_network_can_be_built(mistakes: Mistakes) -> None:
    assert mistakes(PRETRAIN, "data.resolution=48") == [
        "--set data.resolution=48: data.resolution: dcgan is built for resolutions 32, 64, 128; received 48"
    ]
    assert mistakes(PRETRAIN, "data.resolution=64") == []


@pytest.mark.parametrize("depth", [4, 9, 100])
def test_a_freeze_depth_beyond_the_network(mistakes: Mistakes, depth: int) -> None:
    text = FINETUNE.replace("freeze_d: 2", f"freeze_d: {depth}")
    why = "a 32 px network has 4 blocks, one must stay trainable"
    assert mistakes(text) == [f"spec.yaml:6:38: transfer.freeze_d: expected at most 3 ({why}), received {depth}"]


def test_the_deepest_freeze_that_is_possible(mistakes: Mistakes) -> None:
    assert mistakes(FINETUNE, "transfer.freeze_d=3", "transfer.freeze_g=3") == []
    assert mistakes(FINETUNE, "data.resolution=64", "transfer.freeze_d=4") == []


def test_an_unknown_resolution_leaves_only_the_general_bound(mistakes: Mistakes) -> None:
    text = FINETUNE.replace(", resolution: 32", "")
    assert mistakes(text, "transfer.freeze_d=6") == []
    assert mistakes(text, "transfer.freeze_d=9") == [
        "--set transfer.freeze_d=9: transfer.freeze_d: expected a whole number from 0 to 8, received 9"
    ]


def test_an_option_of_another_method(mistakes: Mistakes) -> None:
    text = FINETUNE.replace("freeze_d: 2", "freeze_d: 2, weight: 1.0, rank: 2")
    having = "l2_sp, ewc, feature_matching, feature_distillation, cdc"
    assert mistakes(text) == [
        f"spec.yaml:6:49: transfer.weight: freeze has no weight (it is for {having}); leave it out",
        "spec.yaml:6:60: transfer.rank: freeze has no rank (it is for kernel_modulation); leave it out",
    ]
    assert mistakes(FINETUNE, "transfer.method=ewc", "transfer.weight=3", "transfer.fisher_samples=8") == []


def test_a_method_that_does_not_fit_the_network(mistakes: Mistakes) -> None:
    text = FINETUNE.replace("method: freeze", "method: freeze_mapping") + "model: {arch: dcgan}\n"
    (said,) = mistakes(text)
    assert said.startswith("spec.yaml:6:20: transfer.method: freeze_mapping is for networks with styles (stylegan2")
    assert said.endswith("); dcgan has none")
    assert mistakes(text.replace("dcgan", "stylegan2")) == []


def test_a_freeze_depth_that_the_method_ignores(mistakes: Mistakes) -> None:
    assert mistakes(FINETUNE, "transfer.method=finetune") == [
        "spec.yaml:6:38: transfer.freeze_d: expected 0, for the method finetune freezes nothing; received 2"
        " (write method: freeze)"
    ]


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("glyphs32", 'artifact reference "glyphs32" does not say which version'
         " (write glyphs32:latest or another alias, or glyphs32@<digest>)"),
        ("glyphs32@zz", "artifact reference 'glyphs32@zz' has no valid digest after @"
         " (give 4 to 64 hexadecimal digits, as in glyphs32@0123456789abcdef)"),
    ],
)  # fmt: skip
def test_references(mistakes: Mistakes, reference: str, message: str) -> None:
    text = FINETUNE.replace("glyphs32:latest", reference)
    assert mistakes(text) == [f"spec.yaml:4:23: init_from.artifact: {message}"]


def test_a_stage_outside_a_pipeline(mistakes: Mistakes) -> None:
    assert mistakes(FINETUNE, "init_from={stage: base}") == [
        '--set init_from={stage: base}: init_from.stage: there is no pipeline to look up stage "base" in'
        " (outside a pipeline name an artifact: {artifact: name:alias})"
    ]


@pytest.mark.parametrize("init", ["{}", "{artifact: 'a:b', stage: c}"])
def test_exactly_one_input(mistakes: Mistakes, init: str) -> None:
    found = mistakes(FINETUNE, f"init_from={init}")
    assert any("expected exactly one of `artifact` and `stage`" in text for text in found)


@pytest.mark.parametrize("gate", ["< 0.05", "<=1e-3", ">= .5", "> 0"])
def test_gates(mistakes: Mistakes, gate: str) -> None:
    assert mistakes(EVALUATE, f"gate.kid={gate}") == []


@pytest.mark.parametrize("gate", ["0.05", "= 0.05", "< ", "<< 1", "< x", "< 1e999"])
def test_gates_that_do_not_parse(mistakes: Mistakes, gate: str) -> None:
    found = mistakes(EVALUATE, f'gate={{kid: "{gate}"}}')
    assert found[0].endswith(f'expected a comparison with a number, as in "< 0.05" or ">= 0.4"; received "{gate}"')


def test_gates_on_what_is_not_measured(mistakes: Mistakes) -> None:
    found = mistakes(EVALUATE + 'gate: {fid: "< 3", kdi: "< 1"}\n')
    assert found == [
        "spec.yaml:6:13: gate.fid: fid is not measured (add it to metrics: [kid, fid])",
        f'spec.yaml:6:25: gate.kdi: unknown metric "kdi"; expected one of: {METRICS} (did you mean "kid"?)',
    ]


TEN = """\
version: 1
kind: finetune
name: Digits
init_from: {artifact: glyphs32}
data: {source: digts, resolution: 32, limit: -1}
transfer: {method: freez, freeze_d: 9}
train: {kimg: fast, batch_size: "64", lr_g: 0}
lr_d: 1
metrics: kid
"""
TEN_PLACES = ["3:7", "4:23", "5:16", "5:46", "6:20", "6:37", "7:15", "7:33", "7:45", "8:1", "9:10"]


def test_all_mistakes_at_once_in_the_files_order(mistakes: Mistakes) -> None:
    assert [text.split(": ")[0].removeprefix("spec.yaml:") for text in mistakes(TEN)] == TEN_PLACES


def test_mistakes_of_several_files_and_documents(specs: Path) -> None:
    Path("a.yaml").write_text(PRETRAIN.replace("kimg: 8", "kimg: x") + "---\n" + PRETRAIN.replace("kimg: 8", "kimg: y"))
    Path("b.yaml").write_text("[1]")
    jobs, problems = check_files(["a.yaml", "missing.yaml", "b.yaml", "finetune.yaml"])
    assert [job.name for job in jobs] == ["digits"]
    assert [str(p) for p in problems] == [
        'a.yaml:6:15: train.kimg: expected a number > 0, received "x"',
        'a.yaml:14:15: train.kimg: expected a number > 0, received "y"',
        "missing.yaml: no such file",
        "b.yaml:1:1: expected a spec (a mapping with `kind`), received a list",
    ]


def test_files_that_are_no_specs(workdir: Path) -> None:
    Path("binary.yaml").write_bytes(b"kind: \xff\xfe")
    Path("huge.yaml").write_bytes(b"#" * 4_000_001)
    Path("pretrain.yaml").write_text("")
    problems = check_files(["binary.yaml", "huge.yaml", ".", "pretrian.yaml", "no/x.yaml"])[1]
    assert [str(p) for p in problems] == [
        "binary.yaml: not UTF-8 text: byte 6 is 0xff",
        "huge.yaml: more than 4 MB is no spec",
        ".: Is a directory",
        'pretrian.yaml: no such file (did you mean "pretrain.yaml"?)',
        'no/x.yaml: no such file (the folder "no" does not exist)',
    ]


def test_load_spec_raises_one_error_with_all_problems(specs: Path) -> None:
    Path("ten.yaml").write_text(TEN)
    with pytest.raises(SpecError) as caught:
        load_spec("ten.yaml")
    assert len(caught.value.problems) == 11
    first = caught.value.to_json()
    assert (first["file"], first["line"], first["column"], first["hint"]) == (
        "ten.yaml",
        3,
        7,
        'did you mean "digits"?',
    )
    assert "pydantic" not in str(caught.value)


def test_load_spec_wants_one_document(specs: Path) -> None:
    Path("two.yaml").write_text(PRETRAIN + "---\n" + FINETUNE)
    with pytest.raises(SpecError, match="expected one spec, received 2"):
        load_spec("two.yaml")

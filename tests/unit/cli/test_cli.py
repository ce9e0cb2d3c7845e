"""The command line: options anywhere, errors as lines or JSON, exit codes, help."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer

from jobs import cli
from jobs.output import Context
from jobs.verbs import GROUPS, PANELS, VERBS, Verb
from tlgan.errors import Conflict, NotFound

SPEC = "{kind: pretrain, name: p, data: {source: glyphs}, train: {kimg: 1}}\n"
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """`run("verb", ...)` -> exit code, stdout, stderr."""

    def call(*arguments: str) -> tuple[int, str, str]:
        code = cli.main(list(arguments))
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


SEEN: list[Context] = []


def probe(ctx: Context, what: str = "nothing", number: int = 3, items: list[str] | None = None) -> int | None:
    """Do what the test asks."""
    SEEN.append(ctx)
    errors: dict[str, BaseException] = {
        "missing": NotFound("no artifact digits33", hint='did you mean "digits32"?'),
        "conflict": Conflict("somebody was faster"),
        "bug": ZeroDivisionError("division\nby zero"),
        "interrupt": KeyboardInterrupt(),
        "pipe": BrokenPipeError(),
    }
    if what in errors:
        raise errors[what]
    ctx.say("talk")
    ctx.detail("detail")
    ctx.emit({"value": float("nan"), "path": Path("x"), "number": number}, "data")
    return 7 if what == "seven" else None


@pytest.fixture(autouse=True)
def _probes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(VERBS, "probe", Verb(f"{__name__}:probe", "use"))
    monkeypatch.setitem(VERBS, "sweep probe", Verb(f"{__name__}:probe", "sweep"))
    monkeypatch.setattr(cli, "_reader_gone", lambda: 141)  # the real one closes pytest's stdout
    SEEN.clear()


def test_every_verb_of_the_table_can_be_loaded_and_has_help(run: Run) -> None:
    for name, verb in VERBS.items():
        assert verb.panel in PANELS
        assert " " not in name or name.split()[0] in GROUPS
        code, out, _ = run(*name.split(), "--help")
        assert code == 0
        assert "--no-color" in out
        assert "--json" in out


def test_help_lists_the_verbs_by_panel_in_their_order(run: Run) -> None:
    code, out, err = run("--help")
    assert (code, err) == (0, "")
    sections = [line[:-1].lower() for line in out.splitlines() if line.endswith(":") and line[0] != " "]
    panels = [panel for panel in PANELS if panel in {verb.panel for verb in VERBS.values()}]
    assert sections == [*panels, "options", "everywhere"]
    for name in VERBS:
        assert f"\n  {name.split()[0]} " in out
    assert "Do what the test asks." in out
    assert "\n  probe " in run("sweep", "--help")[1]
    assert max(map(len, out.splitlines())) <= 110


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["probe"], Context()),
        (["probe", "--json", "-q", "-v", "-y", "--store", "file:///s"], Context(True, True, True, True, "file:///s")),
        (["--json", "-q", "-v", "-y", "--store", "file:///s", "probe"], Context(True, True, True, True, "file:///s")),
        (["--json", "sweep", "-q", "probe", "-v"], Context(True, True, True)),
        (["--store", "a", "probe", "--store", "b"], Context(store="b")),
    ],
)
def test_the_common_options_stand_anywhere(run: Run, arguments: list[str], expected: Context) -> None:
    assert run(*arguments)[0] == 0
    assert [expected] == SEEN


def test_data_on_stdout_and_talk_on_stderr(run: Run) -> None:
    assert run("probe") == (0, "data\n", "talk\n")
    assert run("probe", "-v") == (0, "data\n", "talk\ndetail\n")
    assert run("probe", "-q") == (0, "data\n", "")
    code, out, err = run("probe", "--json", "--number", "5")
    assert (code, err) == (0, "talk\n")
    assert json.loads(out) == {"value": None, "path": "x", "number": 5}


def test_exit_codes_and_messages(run: Run) -> None:
    assert run("probe", "--what", "seven")[0] == 7
    assert run("probe", "--what", "missing") == (3, "", 'error: no artifact digits33\nhint: did you mean "digits32"?\n')
    assert run("probe", "--what", "conflict") == (4, "", "error: somebody was faster\n")
    assert run("probe", "--what", "interrupt")[:2] == (130, "")
    assert run("probe", "--what", "pipe") == (141, "", "")
    expected = "error: ZeroDivisionError: division by zero\nhint: run with -v for the traceback\n"
    assert run("probe", "--what", "bug") == (1, "", expected)
    code, _, err = run("probe", "--what", "bug", "-v")
    assert code == 1
    assert "Traceback" in err


def test_errors_as_json(run: Run) -> None:
    code, out, err = run("probe", "--what", "missing", "--json")
    assert (code, out) == (3, "")
    assert json.loads(err)["error"] == {
        "code": "not_found", "message": "no artifact digits33", "file": None, "line": None, "column": None,
        "hint": 'did you mean "digits32"?',
    }  # fmt: skip
    assert json.loads(run("probe", "--what", "bug", "--json")[2])["error"]["code"] == "internal"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["prob"], "No such command 'prob'. Did you mean 'probe'?"),
        (["sweep", "prbe"], "No such command 'prbe'. Did you mean 'probe'?"),
        (["probe", "--jsn"], "--jsn"),
        (["probe", "--number", "x"], "number"),
        (["validate"], "SPEC"),
        ([], "a verb is missing"),
    ],
)
def test_usage_errors(run: Run, arguments: list[str], message: str) -> None:
    code, _, err = run(*arguments)
    assert code == 2
    assert err.splitlines()[-1].startswith("error: ")
    assert message in err.splitlines()[-1]
    assert "--help" in err.splitlines()[-1]
    if arguments:
        code, out, err = run("--json", *arguments)
        assert (code, out) == (2, "")
        assert json.loads(err)["error"]["code"] == "usage"


def test_version(run: Run) -> None:
    from tlgan import __version__

    assert run("--version") == (0, f"tlgan {__version__}\n", "")
    code, out, _ = run("version", "--json")
    assert code == 0
    assert json.loads(out)["tlgan"] == __version__
    assert set(json.loads(out)) >= {"python", "torch", "ray"}


def test_validate(run: Run, workdir: Path) -> None:
    Path("good.yaml").write_text(SPEC)
    Path("bad.yaml").write_text(SPEC.replace("kimg: 1", "kimg: fast"))
    assert run("validate", "good.yaml") == (0, "", "1 spec valid: pretrain p\n")
    assert json.loads(run("validate", "good.yaml", "--json", "-q")[1]) == [{"name": "p", "kind": "pretrain"}]
    bad = 'bad.yaml:1:65: train.kimg: expected a number > 0, received "fast"'
    assert run("validate", "good.yaml", "bad.yaml") == (2, "", f"{bad}\n1 mistake\n")
    code, out, err = run("validate", "bad.yaml", "none.yaml", "--json")
    error = json.loads(err)["error"]
    assert (code, out, error["code"]) == (2, "", "invalid_spec")
    assert (error["file"], error["line"], error["column"]) == ("bad.yaml", 1, 65)
    assert [p["file"] for p in error["problems"]] == ["bad.yaml", "none.yaml"]
    assert run("validate", "bad.yaml", "-s", "train.kimg=1", "--set", "name=q")[2] == "1 spec valid: pretrain q\n"


def test_options_alone_are_no_command(run: Run) -> None:
    for options in (["--json"], ["-q"], ["--store", "x"]):
        assert run(*options)[0] == 2
    assert "a verb is missing" in run("-v")[2]


def test_help_shows_what_stands_in_brackets(run: Run) -> None:
    assert "pip install 'tlgan[onnx]'" in run("export-onnx", "--help")[1]


def test_a_file_that_can_not_be_written_is_named() -> None:
    error = cli._usage(IsADirectoryError(21, "Is a directory", "here"))
    assert (error.exit_code, str(error.message)) == (5, "here: Is a directory")


def test_a_store_that_is_a_file_is_no_empty_store(run: Run, workdir: Path) -> None:
    Path("spec.yaml").write_text("a: 1")
    assert run("ls", "--store", "spec.yaml")[0] == 5
    code, out, err = run("ls", "--store", "new")
    assert (code, out) == (0, "")
    assert "no runs in file:" in err
    assert json.loads(run("ls", "--store", "new", "--json")[1]) == []


def test_evaluate_says_what_is_wrong_with_its_options(run: Run) -> None:
    code, _, err = run("evaluate", "a:latest", "--data", "./nix")
    assert (code, "there is no folder ./nix" in err) == (3, True)
    code, _, err = run("evaluate", "a:latest", "--data", "digits", "--full", "--samples", "64")
    assert (code, "expected --samples or --full; received both" in err) == (2, True)


def test_init_writes_specs_that_are_valid_and_never_overwrites(run: Run, workdir: Path) -> None:
    code, out, err = run("init")
    assert (code, out.split()) == (0, ["pretrain.yaml", "tlgan.yaml"])
    assert "tlgan validate pretrain.yaml" in err
    assert "#" in Path("pretrain.yaml").read_text()
    assert run("validate", "pretrain.yaml")[0] == 0
    assert run("config", "show")[0] == 0
    Path("pretrain.yaml").write_text("mine")
    code, _, err = run("init")
    assert (code, Path("pretrain.yaml").read_text()) == (4, "mine")
    assert "pretrain.yaml exists already; nothing was written" in err
    code, out, err = run("init", "pipeline")  # what is there already is used as it is
    assert (code, Path("pretrain.yaml").read_text()) == (0, "mine")
    assert "kept as it is: pretrain.yaml, tlgan.yaml\n" in err
    assert set(out.split()) == {
        f"{n}.yaml" for n in ("pipeline", "classifier", "finetune", "sweep", "evaluate", "generate")
    }
    assert run("init", "pipelin")[0] == 2


def test_every_example_can_be_written_and_is_valid_where_it_is(run: Run, workdir: Path) -> None:
    listed = json.loads(run("init", "--list", "--json")[1])
    assert {"pretrain", "pretrain-stylegan2", "sweep-methods", "pipeline"} <= {row["example"] for row in listed}
    assert all(row["what"].endswith(".") and "tlgan run" not in row["what"] for row in listed)
    assert f"{'pretrain-stylegan2':<20}  StyleGAN2 from scratch" in run("init", "--list")[1]
    for row in listed:
        folder = workdir / row["example"]
        folder.mkdir()
        os.chdir(folder)
        assert run("init", row["example"])[0] == 0
        assert run("validate", f"{row['example']}.yaml")[0] == 0


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(run: Run, shell: str) -> None:
    code, out, err = run("completion", shell)
    assert (code, err) == (0, "")
    assert "_TLGAN_COMPLETE" in out
    assert run("completion", "csh")[0] == 2


def test_completion_answers(monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    monkeypatch.setenv("_TLGAN_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "tlgan ver")
    monkeypatch.setenv("COMP_CWORD", "1")
    assert run() == (0, "version\n", "")


def test_schema(run: Run) -> None:
    assert json.loads(run("schema", "pretrain")[1])["title"] == "PretrainJob"
    assert len(json.loads(run("schema")[1])["oneOf"]) == 7
    code, _, err = run("schema", "pretrian")
    assert code == 2
    assert 'did you mean "pretrain"?' in err


def test_confirm_without_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    from tlgan.errors import SpecError

    assert Context(yes=True).confirm("Sure?")
    with pytest.raises(SpecError, match="Nobody is there to answer"):
        Context().confirm("Sure?")


def test_progress_says_one_line_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with Context().progress("pulling", total=10) as advance:
        advance(5)
    assert capsys.readouterr().err == "pulling ...\n"


def test_no_color(monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    monkeypatch.setenv("NO_COLOR", "")
    monkeypatch.delenv("NO_COLOR")
    run("probe", "--no-color")
    assert os.environ["NO_COLOR"] == "1"


def test_a_reader_that_leaves_is_no_error(workdir: Path) -> None:
    program = [sys.executable, "-m", "jobs.cli", "schema"]
    with subprocess.Popen(
        program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=Path(cli.__file__).parents[1]
    ) as p:
        assert p.stdout
        assert p.stderr
        p.stdout.close()
        assert p.stderr.read() == b""
    assert p.returncode == 141


def test_a_verb_gets_its_own_parameters(run: Run) -> None:
    code, out, _ = run("probe", "--help")
    assert code == 0
    assert "--items" in out
    assert isinstance(cli.build(), typer.core.TyperGroup)


def test_emit_of_models_and_dataclasses() -> None:
    from jobs.output import table, to_json
    from tlgan.errors import Problem
    from tlgan.recipe import LossSpec

    plain: Any = json.loads(to_json([LossSpec(r1=1.0), Problem("m"), {"s": {1}, 2: float("inf")}]))
    assert plain[0]["r1"] == 1.0
    assert plain[1]["message"] == "m"
    assert plain[2] == {"s": [1], "2": None}
    assert table([["a", "bc"], ["def", "g"]], ["x", "y"]) == "x    y\na    bc\ndef  g"


def test_target_ls_warns_of_settings_with_mistakes(run: Run, workdir: Path) -> None:
    Path("tlgan.yaml").write_text("targets: {lab: {kind: ray, adress: x}, old: {kind: rya}}")
    code, out, err = run("target", "ls")
    assert (code, "lab" in out, "old" in out) == (0, True, True)
    assert "targets.lab.address: required, but missing (of the head's dashboard, as in http://10.0.0.1:8265)" in err
    assert "targets.old.kind: expected one of: local, ray, kuberay; received rya" in err
    assert "targets.lab.adress: unknown key" in run("target", "check", "lab")[2]

"""Who may know whom: jobs -> cluster -> tlgan, and the library works where ray and boto3 are not installed."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_gan import pair

import tlgan
from tlgan.artifact import save_networks

ROOT = Path(__file__).parents[2]
FORBIDDEN = {"tlgan": {"ray", "boto3", "botocore", "cluster", "jobs"}, "cluster": {"jobs"}}
SOURCES = sorted(f for package in ("tlgan", "cluster", "jobs") for f in (ROOT / package).rglob("*.py"))
MOST_LINES = 400

BLOCKED = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("ray", "boto3", "botocore", "cluster", "jobs"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
"""


def imported(file: Path) -> set[str]:
    """Top-level packages that a file imports anywhere, in functions and type-checking blocks too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(), str(file))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: a relative import"
            names.add((node.module or "").partition(".")[0])
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "import_module":
            names |= {a.value.partition(".")[0] for a in node.args if isinstance(a, ast.Constant)}
    return names


def run_python(code: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], check=False, capture_output=True, text=True, timeout=120, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_packages_are_found() -> None:
    assert {file.relative_to(ROOT).parts[0] for file in SOURCES} == {"tlgan", "cluster", "jobs"}


@pytest.mark.parametrize("package", list(FORBIDDEN))
def test_imports_point_one_way(package: str) -> None:
    wrong = {
        str(file.relative_to(ROOT)): sorted(found)
        for file in SOURCES
        if file.is_relative_to(ROOT / package) and (found := imported(file) & FORBIDDEN[package])
    }
    assert wrong == {}


def test_a_file_has_a_few_pages_at_most() -> None:
    own = [*SOURCES, *(ROOT / "tests").rglob("*.py")]
    sizes = {str(f.relative_to(ROOT)): len(f.read_text().splitlines()) for f in own}
    assert {name: lines for name, lines in sizes.items() if lines > MOST_LINES} == {}


def test_the_library_generates_without_ray_and_boto3(tmp_path: Path) -> None:
    """A model directory and `tlgan` are all that a person needs."""
    G, _ = pair()
    save_networks(tmp_path, {"G_ema": G.eval()}, type="gan")
    code = (
        BLOCKED
        + """
import json, tlgan
images = tlgan.generate(tlgan.load_generator(sys.argv[1]), n=3, seed=5)
print(json.dumps({"pixels": images.tolist(), "dtype": str(images.dtype)}))
"""
    )
    answer = json.loads(run_python(code, str(tmp_path)))
    assert answer == {"pixels": tlgan.generate(G.eval(), n=3, seed=5).tolist(), "dtype": "torch.uint8"}


def test_every_module_of_the_library_imports_without_ray_and_boto3() -> None:
    modules = [
        ".".join(f.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for f in SOURCES
        if f.is_relative_to(ROOT / "tlgan")
    ]
    code = BLOCKED + "import importlib\nfor name in sys.argv[1:]:\n    importlib.import_module(name)\n"
    run_python(code, *modules)


def test_every_entry_of_every_table_can_be_loaded() -> None:
    from tlgan import registry

    tables = [table for table in vars(registry).values() if isinstance(table, registry.Table)]
    assert len(tables) > 5
    for table in tables:
        for name in table:
            assert callable(table.load(name)), f"{table.what} {name}"


def test_importing_tlgan_and_its_recipes_is_light() -> None:
    code = "import sys, tlgan, tlgan.recipe, tlgan.registry, tlgan.errors, tlgan.manifest\nprint(*sorted(sys.modules))"
    assert not {"torch", "numpy", "ray", "boto3"} & set(run_python(code).split())


def test_the_public_names_resolve() -> None:
    assert len(set(tlgan.__all__)) == len(tlgan.__all__)
    for name in tlgan.__all__:
        assert getattr(tlgan, name) is not None
    assert set(tlgan.__all__) <= set(dir(tlgan))
    with pytest.raises(AttributeError, match="module 'tlgan' has no attribute 'no_such_name'"):
        tlgan.no_such_name  # noqa: B018

"""`make` installs what constraints.txt pins and asks no resolver: it must name all that `.[dev]` leads to."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    found = [line.split("==") for line in lines if not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in found}


@cache
def wanted() -> list[Requirement]:
    """All that the project and its extra `dev` require here, and what that requires, with the extras asked for."""
    found: list[Requirement] = []
    seen: set[tuple[str, str]] = set()
    todo = [Requirement(line) for line in PROJECT["dependencies"] + PROJECT["optional-dependencies"]["dev"]]
    while todo:
        requirement = todo.pop()
        name = canonicalize_name(requirement.name)
        found.append(requirement)
        try:
            lines = distribution(name).requires or []
        except PackageNotFoundError:
            continue
        for extra in {"", *requirement.extras} - {e for n, e in seen if n == name}:
            seen.add((name, extra))
            further = [Requirement(line) for line in lines]
            todo += [r for r in further if r.marker is None or r.marker.evaluate({"extra": extra})]
    return found


def test_every_package_that_is_needed_is_pinned() -> None:
    names = {canonicalize_name(requirement.name) for requirement in wanted()}
    assert len(names) > 100
    assert names - set(pins()) == set()


def test_the_pins_are_within_the_ranges() -> None:
    pinned = pins()
    assert not [
        f"{requirement}: {pinned[name]} is pinned"
        for requirement in wanted()
        if (name := canonicalize_name(requirement.name)) in pinned
        and not requirement.specifier.contains(pinned[name], prereleases=True)
    ]

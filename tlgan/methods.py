"""Which transfer methods there are, which options each has and which networks it fits: read from the tables, without torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tlgan import registry

OPTIONS = tuple(
    dict.fromkeys(name for method in registry.TRANSFERS for name in registry.TRANSFERS.facts(method).get("options", {}))
)
"""Fields of a transfer section that some methods have and others have not."""


def options(method: str) -> dict[str, Any]:
    """The method's own options and their defaults."""
    return dict(registry.TRANSFERS.facts(method).get("options", {}))


def idle(method: str, given: Mapping[str, Any]) -> list[str]:
    """Options in a transfer section that the method does not have."""
    return [name for name in OPTIONS if given.get(name) is not None and name not in options(method)]


def lacks(method: str, option: str) -> str:
    """The sentence that refuses an option."""
    having = ", ".join(other for other in registry.TRANSFERS if option in options(other))
    return f"{method} has no {option} (it is for {having})"


def misfit(method: str, arch: str) -> str | None:
    """Why a method makes no sense on a network; None where it does."""
    needs = registry.TRANSFERS.facts(method).get("needs")
    if needs is None or registry.ARCHS.facts(arch).get(needs):
        return None
    fitting = ", ".join(name for name in registry.ARCHS if registry.ARCHS.facts(name).get(needs))
    return f"{method} is for networks with {needs} ({fitting}); {arch} has none"


def table() -> str:
    """Methods by networks in Markdown: a line a method, with its paper, its options and where it fits."""
    archs = list(registry.ARCHS)
    lines = [f"| method | what it does | options (default) | {' | '.join(archs)} |", f"|{'---|' * (3 + len(archs))}"]
    for method in registry.TRANSFERS:
        facts = registry.TRANSFERS.facts(method)
        own = ["`freeze_d`, `freeze_g`"] if facts.get("freezes") else []
        own += [f"`{name}`" + (f" ({value})" if value is not None else "") for name, value in options(method).items()]
        fits = ["–" if misfit(method, arch) else "yes" for arch in archs]
        lines.append(f"| `{method}` | {facts['about']} | {', '.join(own)} | {' | '.join(fits)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(table(), end="")  # for the README

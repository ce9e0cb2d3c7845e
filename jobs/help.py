"""How help is laid out: plain text, verbs in their groups, the options that every verb has last.

Plain, because typer's boxes take rich and a Markdown parser: twice the processor time of all the rest of `tlgan --help`.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

import typer.core

SETTINGS: dict[str, Any] = {"help_option_names": ["-h", "--help"], "max_content_width": 110}
LAST = "Everywhere"  # the section of the options that every verb has


class Command(typer.core.TyperCommand):
    """A verb."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        _write_parameters(self, ctx, formatter)


class Group(typer.core.TyperGroup):
    """Verbs that share their first word, or all of them."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        found: list[Any] = [self.get_command(ctx, name) for name in self.list_commands(ctx)]
        _write_sections(formatter, ((c.rich_help_panel, c.name, _first_sentence(c.help)) for c in found))
        _write_parameters(self, ctx, formatter)


def _first_sentence(text: str | None) -> str:
    paragraph = " ".join(inspect.cleandoc(text or "").partition("\n\n")[0].split())
    sentence, stop, _ = paragraph.partition(". ")
    return (sentence + stop).strip()


def _write_parameters(command: Any, ctx: Any, formatter: Any) -> None:
    def section(parameter: Any) -> str:
        kind = "Arguments" if parameter.param_type_name == "argument" else "Options"
        return str(getattr(parameter, "rich_help_panel", None) or kind)

    shown = ((section(p), record) for p in command.get_params(ctx) if (record := p.get_help_record(ctx)) is not None)
    rows = [(name, *record) for name, record in shown]
    _write_sections(
        formatter, sorted(rows, key=lambda row: (row[0] != "Arguments", row[0] != "Options", row[0] == LAST))
    )


def _write_sections(formatter: Any, rows: Iterable[tuple[str, str, str]]) -> None:
    sections: dict[str, list[tuple[str, str]]] = {}
    for section, name, text in rows:
        sections.setdefault(section, []).append((name, text))
    widest = max((len(name) for lines in sections.values() for name, _ in lines), default=0)
    for section, lines in sections.items():
        with formatter.section(section.capitalize()):
            # One column for all sections: the first is padded to the widest name, which the formatter would do section by section.
            formatter.write_dl([(name.ljust(min(widest, 30)), text) for name, text in lines])

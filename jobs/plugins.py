"""What pydantic would do for plugins of its own."""

from __future__ import annotations

import sys
import types

LOADER = "pydantic.plugin._loader"


def no_plugins() -> None:
    """Lets pydantic, if it is not imported yet, do without: it would read the metadata of every package that is installed.

    That is a tenth of the processor time of `tlgan validate`, most of it for what it imports to that end, and so switching
    plugins off by PYDANTIC_DISABLE_PLUGINS gains little. A pydantic without this module (of 2.14) looks for them as ever.
    """
    none = types.ModuleType(LOADER, "No plugins.")
    none.get_plugins = lambda: ()  # type: ignore[attr-defined]
    sys.modules.setdefault(LOADER, none)

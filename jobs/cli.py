"""The command line: `tlgan VERB`. Builds the commands from the table in `jobs.verbs` and turns errors into exit codes.

Nothing heavy is imported here: `tlgan --help` and `tlgan validate` answer before torch or ray could be.
"""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.main import get_command, get_group

import tlgan
from cluster.spinning import spin_little
from jobs.help import LAST, SETTINGS, Command, Group
from jobs.output import Context, print_error
from jobs.plugins import no_plugins
from jobs.verbs import GROUPS, PANELS, VERBS
from tlgan.errors import BackendError, SpecError

PROGRAM = "tlgan"
COMPLETE_VARIABLE = "_TLGAN_COMPLETE"

_EVERYWHERE: dict[str, Any] = {
    "json": Annotated[bool, typer.Option("--json", help="Print data as JSON.", rich_help_panel=LAST)],
    "quiet": Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but errors.", rich_help_panel=LAST)],
    "verbose": Annotated[bool, typer.Option("--verbose", "-v", help="Say more.", rich_help_panel=LAST)],
    "yes": Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing.", rich_help_panel=LAST)],
    "store": Annotated[
        str | None,
        typer.Option("--store", metavar="URL", help="file:///path or s3://bucket/prefix.", rich_help_panel=LAST),
    ],
    "no_color": Annotated[bool, typer.Option("--no-color", help="No colours.", rich_help_panel=LAST)],
}


def _parameters() -> list[inspect.Parameter]:
    kind = inspect.Parameter.KEYWORD_ONLY
    context = inspect.Parameter("_context", kind, annotation=typer.Context)
    defaults = {"store": None}
    own = [
        inspect.Parameter(f"_{name}", kind, annotation=a, default=defaults.get(name, False))
        for name, a in _EVERYWHERE.items()
    ]
    return [context, *own]


def _take_options(values: dict[str, Any]) -> dict[str, Any]:
    """Removes the options that every verb has from `values`; those given before the verb count too."""
    context = values.pop("_context")
    own = {name: values.pop(f"_{name}") for name in _EVERYWHERE}
    before = context.obj or {}
    context.obj = {name: value or before.get(name) for name, value in own.items()}
    return dict(context.obj)


def _with_options(function: Callable[..., Any]) -> Callable[..., None]:
    """`function(Context, ...)` as a callback whose signature has the options that every verb has."""
    signature = inspect.signature(function, eval_str=True)
    _, *parameters = signature.parameters.values()

    def callback(**values: Any) -> None:
        options = _take_options(values)
        options.pop("no_color")
        context = Context(**{name: value or Context.__dict__[name] for name, value in options.items()})
        try:
            code = function(context, **values)
            sys.stdout.flush()
        except BrokenPipeError:  # typer would end with 1
            raise typer.Exit(_reader_gone()) from None
        if code:
            raise typer.Exit(code)

    parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in parameters]
    callback.__signature__ = signature.replace(parameters=[*parameters, *_parameters()])  # type: ignore[attr-defined]
    callback.__annotations__ = {}
    callback.__doc__ = function.__doc__
    return callback


def _group(prefix: str) -> type[Group]:
    """The commands whose names start with `prefix` ("" or "artifact "), each built when asked for."""
    words = list(dict.fromkeys(verb.removeprefix(prefix).split()[0] for verb in VERBS if verb.startswith(prefix)))
    panel = {word: next(v.panel for n, v in VERBS.items() if f"{n} ".startswith(f"{prefix}{word} ")) for word in words}
    words.sort(key=lambda word: PANELS.index(panel[word]))

    class LazyGroup(Group):
        def list_commands(self, ctx: Any) -> list[str]:
            return words

        def format_help(self, ctx: Any, formatter: Any) -> None:
            self.listing = True  # a list of verbs needs their first lines, not their options
            super().format_help(ctx, formatter)

        def get_command(self, ctx: Any, cmd_name: str) -> Any:
            if cmd_name in words and getattr(self, "listing", False):
                return _listed(prefix + cmd_name, panel[cmd_name])
            if cmd_name in words and cmd_name not in self.commands:
                self.commands[cmd_name] = _build(prefix + cmd_name, panel[cmd_name])
            return self.commands.get(cmd_name)

        def resolve_command(self, ctx: Any, args: list[str]) -> Any:
            if args[0] not in words:
                for word in words:  # so that the nearest one can be suggested
                    self.get_command(ctx, word)
            return super().resolve_command(ctx, args)

    return LazyGroup


def _listed(name: str, panel: str) -> Any:
    """As `_build`, good for a line of help alone."""
    text = _function(name).__doc__ if name in VERBS else GROUPS[name]
    return Command(name.split()[-1], help=text, rich_help_panel=panel)


def _function(name: str) -> Callable[..., Any]:
    module, _, function = VERBS[name].target.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), function)
    return found


def _build(name: str, panel: str) -> Any:
    if name not in VERBS:
        return _build_group(f"{name} ", GROUPS[name], panel)
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    callback = _with_options(_function(name))
    app.command(name.split()[-1], cls=Command, rich_help_panel=panel, context_settings=SETTINGS)(callback)
    return get_command(app)


def _build_group(prefix: str, text: str, panel: str | None = None) -> Any:
    name = prefix.strip() or PROGRAM
    app = typer.Typer(
        name=name.split()[-1], cls=_group(prefix), help=text, no_args_is_help=True, add_completion=False, rich_markup_mode=None,
        context_settings=SETTINGS,
    )  # fmt: skip

    def callback(**values: Any) -> None:
        if values.pop("_version", False):
            print(f"{PROGRAM} {tlgan.__version__}")
            raise typer.Exit
        if values["_context"].invoked_subcommand is None:
            raise SpecError("a verb is missing", hint=f"{PROGRAM} --help lists them")
        _take_options(values)

    parameters = _parameters() + ([] if prefix else [_VERSION])
    callback.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    callback.__annotations__ = {}
    app.callback(invoke_without_command=not prefix)(callback)
    group = get_group(app)
    group.rich_help_panel = panel
    return group


_VERSION = inspect.Parameter(
    "_version",
    inspect.Parameter.KEYWORD_ONLY,
    annotation=Annotated[bool, typer.Option("--version", help="Print the version.")],
    default=False,
)


def build() -> Any:
    """The whole command, with no verb loaded yet."""
    return _build_group("", "Transfer learning for GANs: pretrain, search how to fine-tune, evaluate, publish, pull.")


def main(arguments: list[str] | None = None) -> int:
    """Runs one command line (default: the process's) and returns its exit code. Never raises."""
    spin_little()
    no_plugins()
    given = sys.argv[1:] if arguments is None else arguments
    options = given[: given.index("--")] if "--" in given else given
    if "--no-color" in options:
        os.environ["NO_COLOR"] = "1"
    try:
        return _run(given)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 1
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        return print_error(_usage(error), as_json="--json" in options, verbose=_wants(options, "-v", "--verbose"))


def _reader_gone() -> int:
    """The reader of our output has left, as in `| head`: stay quiet, end like a process killed by SIGPIPE."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 141


def _wants(options: list[str], *names: str) -> bool:
    return any(name in options for name in names)


def _run(arguments: list[str]) -> int:
    if COMPLETE_VARIABLE in os.environ:
        from typer.completion import completion_init  # type: ignore[attr-defined]

        completion_init()
    code = build().main(arguments, prog_name=PROGRAM, complete_var=COMPLETE_VARIABLE, standalone_mode=False)
    return code if isinstance(code, int) else 0


def _usage(error: Exception) -> Exception:
    """A mistake in the command line itself, as an error with exit code 2."""
    if getattr(error, "exit_code", None) == 2 and hasattr(error, "format_message"):
        context = getattr(error, "ctx", None)
        if type(error).__name__ == "NoArgsIsHelpError" and context is not None:
            return SpecError("a verb is missing", hint=f"{context.command_path} --help lists them")
        path = context.command_path if context is not None else PROGRAM
        usage = SpecError(str(error.format_message()).replace("\n", " "), hint=f"{path} --help")
        usage.code = "usage"
        return usage
    if isinstance(error, OSError) and error.filename is not None:  # a file that a person named
        place = f"{error.filename}: {error.strerror or error}"
        return BackendError(place, hint="check the path, its permissions and the free space")
    return error


if __name__ == "__main__":
    sys.exit(main())

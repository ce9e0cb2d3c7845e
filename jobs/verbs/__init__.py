"""The table of verbs. Adding one is a function and a line here; its module is imported only when the verb is used.

A verb is a function whose first parameter is a `jobs.output.Context`; the others become arguments and options as
in typer. Its docstring is its help. It may return an exit code. Heavy imports (torch, ray, boto3) stand inside it.
"""

from __future__ import annotations

from dataclasses import dataclass

PANELS = ("start", "check", "run", "watch", "control", "sweep", "artifacts", "use", "data", "other")


@dataclass(frozen=True)
class Verb:
    """`target` is `"module:function"`, `panel` the group in `tlgan --help`."""

    target: str
    panel: str


VERBS: dict[str, Verb] = {
    "init": Verb("jobs.verbs.start:init", "start"),
    "doctor": Verb("jobs.verbs.doctor:doctor", "start"),
    "quickstart": Verb("jobs.verbs.quickstart:quickstart", "start"),
    "validate": Verb("jobs.verbs.check:validate", "check"),
    "plan": Verb("jobs.verbs.plan:plan", "check"),
    "schema": Verb("jobs.verbs.check:schema", "check"),
    "run": Verb("jobs.verbs.run:run", "run"),
    "submit": Verb("jobs.verbs.submit:submit", "run"),
    "evaluate": Verb("jobs.verbs.run:evaluate", "use"),
    "chaos": Verb("jobs.verbs.chaos:chaos", "run"),
    "ls": Verb("jobs.verbs.watch:ls", "watch"),
    "show": Verb("jobs.verbs.watch:show", "watch"),
    "metrics": Verb("jobs.verbs.watch:metrics", "watch"),
    "events": Verb("jobs.verbs.watch:events", "watch"),
    "logs": Verb("jobs.verbs.follow:logs", "watch"),
    "grid": Verb("jobs.verbs.watch:grid", "watch"),
    "wait": Verb("jobs.verbs.follow:wait", "watch"),
    "stop": Verb("jobs.verbs.control:stop", "control"),
    "resume": Verb("jobs.verbs.control:resume", "control"),
    "sweep show": Verb("jobs.verbs.sweep:show", "sweep"),
    "sweep leaderboard": Verb("jobs.verbs.sweep:leaderboard", "sweep"),
    "sweep retry": Verb("jobs.verbs.sweep:retry", "sweep"),
    "sweep extend": Verb("jobs.verbs.sweep:extend", "sweep"),
    "sweep report": Verb("jobs.verbs.report:report", "sweep"),
    "pull": Verb("jobs.verbs.artifacts:pull", "artifacts"),
    "push": Verb("jobs.verbs.artifacts:push", "artifacts"),
    "import": Verb("jobs.verbs.importing:import_networks", "artifacts"),
    "artifact ls": Verb("jobs.verbs.artifacts:ls", "artifacts"),
    "artifact show": Verb("jobs.verbs.artifacts:show", "artifacts"),
    "artifact lineage": Verb("jobs.verbs.artifacts:lineage", "artifacts"),
    "artifact diff": Verb("jobs.verbs.compare:diff", "artifacts"),
    "artifact alias": Verb("jobs.verbs.aliases:alias", "artifacts"),
    "artifact verify": Verb("jobs.verbs.verify:verify", "artifacts"),
    "artifact sign": Verb("jobs.verbs.artifacts:sign", "artifacts"),
    "artifact rm": Verb("jobs.verbs.collect:rm", "artifacts"),
    "artifact restore": Verb("jobs.verbs.collect:restore", "artifacts"),
    "artifact gc": Verb("jobs.verbs.collect:gc", "artifacts"),
    "artifact copy": Verb("jobs.verbs.moves:copy", "artifacts"),
    "artifact export": Verb("jobs.verbs.moves:export", "artifacts"),
    "artifact import": Verb("jobs.verbs.moves:import_file", "artifacts"),
    "artifact share": Verb("jobs.verbs.moves:share", "artifacts"),
    "generate": Verb("jobs.verbs.use:generate", "use"),
    "project": Verb("jobs.verbs.latents:project", "use"),
    "directions": Verb("jobs.verbs.latents:directions", "use"),
    "blend": Verb("jobs.verbs.latents:blend", "use"),
    "export-onnx": Verb("jobs.verbs.exporting:export_onnx", "use"),
    "recommend": Verb("jobs.verbs.recommend:recommend", "use"),
    "data ls": Verb("jobs.verbs.data:ls", "data"),
    "data pack": Verb("jobs.verbs.data:pack", "data"),
    "data show": Verb("jobs.verbs.data:show", "data"),
    "target ls": Verb("jobs.verbs.targets:ls", "other"),
    "target check": Verb("jobs.verbs.targets:check", "other"),
    "render": Verb("jobs.verbs.targets:render", "other"),
    "config show": Verb("jobs.verbs.other:config_show", "other"),
    "report": Verb("jobs.verbs.report:report", "other"),
    "completion": Verb("jobs.verbs.other:completion", "other"),
    "version": Verb("jobs.verbs.other:version", "other"),
}

GROUPS: dict[str, str] = {
    "sweep": "Look into a search, and go on with it.",
    "artifact": "Published results: what there is and where it comes from.",
    "data": "Datasets.",
    "target": "Where jobs run.",
    "config": "The settings in force.",
}
"""One-line help of each first word that several verbs share; shown once a verb of the group exists."""

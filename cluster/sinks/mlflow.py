"""MLflow: files below `.tlgan/sinks/mlruns`, or the server that `MLFLOW_TRACKING_URI` names."""

from __future__ import annotations

import os
from typing import Any

from cluster.sinks import About, Event, numbers

EXPERIMENT = "tlgan"
STATES = {"succeeded": "FINISHED", "failed": "FAILED", "stopped": "KILLED"}


class MLflow:
    """A run of the experiment `tlgan`, or of `MLFLOW_EXPERIMENT_NAME`. The recipe's fields are its parameters."""

    def __init__(self, about: About) -> None:
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # newer versions ask for it
        from mlflow.tracking import MlflowClient

        uri = os.environ.get("MLFLOW_TRACKING_URI") or (about.folder / "mlruns").absolute().as_uri()
        self.client: Any = MlflowClient(tracking_uri=uri)
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
        known = self.client.get_experiment_by_name(name)
        experiment = known.experiment_id if known else self.client.create_experiment(name)
        self.run_id = self.client.create_run(experiment, run_name=about.run, tags={"kind": about.kind}).info.run_id
        for name, value in leaves(about.recipe):
            self.client.log_param(self.run_id, name, str(value)[:250])
        self.state = "FINISHED"

    def __call__(self, event: Event) -> None:
        for name, value in numbers(event):
            self.client.log_metric(self.run_id, name, value, step=int(event.get("nimg", 0)))
        if event["type"] == "run":
            self.state = STATES.get(event["state"], self.state)

    def close(self) -> None:
        self.client.set_terminated(self.run_id, self.state)


def leaves(recipe: dict[str, Any], path: str = "") -> list[tuple[str, Any]]:
    """Fields by dotted path, without what is not set."""
    found: list[tuple[str, Any]] = []
    for name, value in recipe.items():
        where = f"{path}{name}"
        if isinstance(value, dict):
            found += leaves(value, f"{where}.")
        elif value is not None:
            found.append((where, value))
    return found

"""Ray Train's trainer with no more processes than are needed. Imports ray and torch."""

from __future__ import annotations

import asyncio
from typing import Any

from ray.train.torch import TorchTrainer

from cluster.ray_controller import controller_of_this_process, never_synchronize, of_fixed_size
from cluster.ray_daemons import has_api_server


class FewActorsTrainer(TorchTrainer):
    """A `TorchTrainer` without actors that are of no use here, each a process more to start, two seconds of a processor.

    One hands out Ray Data's shards, and nobody has any. The other frees what a dead controller held: it asks Ray's API server
    whether the controller lives, and without one waits twelve seconds for an answer when the training has ended. Where Ray has
    no such method or callbacks any more, this is a plain `TorchTrainer`.
    """

    def _create_default_callbacks(self) -> list[Any]:
        made = super()._create_default_callbacks()  # type: ignore[misc]
        needless = {"DatasetsCallback"} | (set() if has_api_server() else {"PlacementGroupCleanerCallback"})
        return [callback for callback in made if type(callback).__name__ not in needless]

    def _initialize_and_run_controller(self, **settings: Any) -> Any:
        """Ray Train's controller in this thread, where Ray would start a process for it first, and then the workers.

        On a cluster it stays a process of its own, and so do those that ask there whether nodes are about to be taken away,
        ask the autoscaler for more, and let workers wait for one another in `ray.train.report`.
        """
        controller_type = None if has_api_server() else controller_of_this_process()
        if controller_type is None:
            return super()._initialize_and_run_controller(**settings)  # type: ignore[misc]
        never_synchronize()
        controller = controller_type(**{**settings, "scaling_policy": of_fixed_size(settings["scaling_policy"])})
        asyncio.run(controller.run())
        return controller.get_result()

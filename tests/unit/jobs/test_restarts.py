"""Why the workers were lost, how often that is made good, and how many of them there is room for."""

from __future__ import annotations

import pytest
from ray.exceptions import ActorDiedError
from ray.train.v2._internal.exceptions import WorkerGroupStartupTimeoutError
from ray.train.v2.api.exceptions import ControllerError, PreemptionError, WorkerGroupError
from ray.train.v2.api.preemption import PreemptionInfo

from cluster.capacity import places
from cluster.restarts import CAPACITY, CRASH, PREEMPTION, RESIZE, Restarts, ending_of
from cluster.room import GROWS, NodeGroup, check_fits, groups_here, grown
from cluster.sections import ResourcesSpec, RetrySpec
from cluster.specfile import parse_job
from tlgan.errors import Infeasible, RunFailed, SpecError, TlganError

SPEC = {"kind": "pretrain", "name": "x", "data": {"source": "digits"}, "train": {"kimg": 1, "batch_size": 48}}
DEAD = WorkerGroupError("a worker died", {1: ActorDiedError()})
RAYS: dict[str, tuple[Exception, str | None]] = {
    "worker died": (DEAD, CRASH),
    "an error of the training": (WorkerGroupError("one failed", {0: ValueError("bad value")}), CRASH),
    "node taken away": (PreemptionError(PreemptionInfo(None, {"a": [0]}), drain_timed_out=True), PREEMPTION),
    "no room": (ControllerError(WorkerGroupStartupTimeoutError(2)), CAPACITY),
    "something else": (RuntimeError("unheard of"), None),
}


@pytest.mark.parametrize("case", list(RAYS))
def test_what_ray_raises_is_sorted_by_cause(case: str) -> None:
    error, cause = RAYS[case]
    found, shown = ending_of(error)
    assert found == cause
    assert isinstance(shown, TlganError)


def test_our_own_error_is_found_inside_rays() -> None:
    own = SpecError("ten mistakes")
    assert ending_of(WorkerGroupError("one failed", {0: own}))[1] is own


def test_each_cause_has_its_own_budget() -> None:
    restarts = Restarts(RetrySpec(crashes=2, preemptions=1))
    for cause in (CRASH, PREEMPTION, CRASH, RESIZE, CAPACITY, RESIZE, RESIZE, CAPACITY):
        restarts.spend(cause)
    with pytest.raises(RunFailed, match=r"lost by a preemption after 1 restart$"):
        restarts.spend(PREEMPTION)
    with pytest.raises(RunFailed, match="lost by a crash after 2 restarts; the last one: out of memory") as error:
        restarts.spend(CRASH, RunFailed("out of memory"))
    assert "retry.crashes" in str(error.value.hint)


def test_room_that_ray_never_finds_is_given_up() -> None:
    restarts = Restarts(RetrySpec(wait_minutes=2))
    for _ in range(3):
        restarts.spend(CAPACITY)
    with pytest.raises(RunFailed, match="Ray found no room for the workers in 3 tries"):
        restarts.spend(CAPACITY)


def test_no_restart_is_allowed() -> None:
    with pytest.raises(RunFailed, match="lost by a crash and no restart is allowed; the last one: gone"):
        Restarts(RetrySpec(crashes=0)).spend(CRASH, RunFailed("gone"))


def test_a_range_of_workers_keeps_the_batch_whole() -> None:
    job = parse_job({**SPEC, "resources": {"workers": "2..6"}})
    assert job.resources.sizes(48) == [6, 4, 3, 2]
    assert parse_job(job.to_dict()) == job
    assert parse_job(SPEC, ["resources.workers=3..8"]).resources.least == 3
    assert parse_job({**SPEC, "resources": {"workers": 4}}).resources.sizes(48) == [4]


@pytest.mark.parametrize(
    ("workers", "said"),
    [
        ("6..2", "expected at most 2, the end of the range; received 6"),
        ("2..7", "expected a multiple of resources.workers"),
        ("0..4", "expected a whole number from 1 to 4096, received 0"),
        ("2..", "expected a whole number from 0 to 4096"),
        ("2..99999", "expected a whole number from 0 to 4096"),
    ],
)
def test_a_range_that_can_not_be_is_refused(workers: str, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        parse_job({**SPEC, "resources": {"workers": workers}})


def test_a_range_fits_where_its_least_fits() -> None:
    node = {"CPU": 4.0}
    check_fits(ResourcesSpec.model_validate({"workers": "2..64"}), [node], "this machine")
    with pytest.raises(Infeasible):
        check_fits(ResourcesSpec.model_validate({"workers": "5..64"}), [node], "this machine")


def test_a_worker_must_fit_on_one_node() -> None:
    free = [{"CPU": 3.0, "GPU": 1.0}, {"CPU": 1.0}, {"CPU": 8.0, "GPU": 4.0}]
    assert places(ResourcesSpec(workers=2, cpus_per_worker=2), free) == 5
    assert places(ResourcesSpec(workers=2, cpus_per_worker=2, gpus_per_worker=2), free) == 2
    assert places(ResourcesSpec(workers=2, cpus_per_worker=9), free) == 0


def test_nodes_of_a_group_that_are_there_count_as_that_group(monkeypatch: pytest.MonkeyPatch) -> None:
    small = NodeGroup(nodes=3, cpus=4)
    head, member = {"CPU": 2.0, "memory": 1e9}, {"CPU": 4.0, "memory": 1e9}
    assert grown([head, member], []) == [head, member]
    assert grown([head, member], [small]) == [head, *[{"CPU": 4.0, "GPU": 0.0}] * 3]
    assert groups_here() == []
    monkeypatch.setenv(GROWS, '[{"nodes": 3, "cpus": 4}]')
    assert groups_here() == [small]

"""Target kuberay: the RayJob it makes, and kubectl applying it to a small API server that knows ray.io/v1."""

from __future__ import annotations

import http.server
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from loopback import LoopbackServer
from servers import S3Server

from cluster.runs import Runs
from cluster.specfile import parse_job
from cluster.store import ArtifactStore, open_store
from cluster.submission import prepare
from cluster.targets import make_target
from tlgan.errors import BackendError, SpecError

Run = Callable[..., tuple[int, str, str]]
SETTINGS = {
    "kind": "kuberay",
    "image": "registry.example/tlgan:1",
    "namespace": "gans",
    "env_from": ["store-keys"],
    "env": {"OMP_NUM_THREADS": "1"},
    "node_selector": {"pool": "gpu"},
}
PLACE = "/apis/ray.io/v1/namespaces/gans/rayjobs"


@pytest.fixture
def bucket(moto_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    moto_server.use(monkeypatch)
    url = f"s3://{moto_server.new_bucket()}/models"
    monkeypatch.setenv("TLGAN_STORE", url)
    return url


def manifest_of(bucket: str, job: Any, **settings: Any) -> Any:
    target = make_target("k8s", {**SETTINGS, **settings})
    return yaml.safe_load(target.rendered(prepare(job, ArtifactStore(bucket), target).ticket))


def test_a_worker_is_a_pod_and_keys_come_from_a_secret(bucket: str, job: Any, moto_server: S3Server) -> None:
    made = manifest_of(bucket, job(resources__workers=2, resources__cpus_per_worker=3, resources__gpus_per_worker=1))
    assert (made["apiVersion"], made["kind"]) == ("ray.io/v1", "RayJob")
    assert len(made["metadata"]["name"]) < 48, "KubeRay makes longer names of it"
    spec = made["spec"]
    assert spec["entrypoint"].startswith(f"python -P -m jobs.launch {bucket} tiny-")
    assert (spec["shutdownAfterJobFinishes"], spec["backoffLimit"]) == (True, 0)
    cluster = spec["rayClusterSpec"]
    (group,) = cluster["workerGroupSpecs"]
    assert (group["replicas"], group["minReplicas"], group["maxReplicas"]) == (2, 2, 2)
    (worker,) = group["template"]["spec"]["containers"]
    assert worker["resources"]["limits"] == {"cpu": "3", "memory": "8Gi", "nvidia.com/gpu": "1"}
    assert group["template"]["spec"]["nodeSelector"] == {"pool": "gpu"}
    head = cluster["headGroupSpec"]
    assert head["rayStartParams"]["num-cpus"] == "0", "workers go to the workers' pods"
    for container in (worker, head["template"]["spec"]["containers"][0]):
        assert container["envFrom"] == [{"secretRef": {"name": "store-keys"}}]
        assert {entry["name"] for entry in container["env"]} == {"OMP_NUM_THREADS", "TLGAN_S3_ENDPOINT"}
    assert moto_server.environment["AWS_SECRET_ACCESS_KEY"] not in json.dumps(made)


def test_a_training_in_the_driver_has_the_head_to_itself(bucket: str, job: Any) -> None:
    spec = manifest_of(bucket, job(resources__cpus_per_worker=6))["spec"]
    assert spec["rayClusterSpec"]["workerGroupSpecs"] == []
    head = spec["rayClusterSpec"]["headGroupSpec"]
    assert head["template"]["spec"]["containers"][0]["resources"]["requests"]["cpu"] == "6"
    assert (head["rayStartParams"]["num-cpus"], spec["entrypointNumCpus"]) == ("6", 6)


def test_trials_that_share_a_gpu_share_a_pod(bucket: str, job: Any) -> None:
    base = {**job(resources__gpus_per_worker=0.5, resources__workers=1).to_dict(), "evaluation": {"samples": 64}}
    sweep = {"kind": "sweep", "name": "s", "base": base, "space": {"train.lr_g": {"uniform": [0.1, 0.2]}}}
    made = manifest_of(bucket, parse_job({**sweep, "search": {"trials": 6, "parallel": 4}}))
    (group,) = made["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    assert group["replicas"] == 2
    assert group["template"]["spec"]["containers"][0]["resources"]["limits"] == {
        "cpu": "2", "memory": "8Gi", "nvidia.com/gpu": "1",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image": None}, "targets.k8s.image"),
        ({"imgae": "x"}, 'did you mean "image"'),
        ({"namespace": "Not Valid"}, "targets.k8s.namespace"),
        ({"env": {"AWS_SECRET_ACCESS_KEY": "x"}}, "AWS_SECRET_ACCESS_KEY looks like a secret"),
    ],
)
def test_mistakes_in_a_target(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError) as caught:
        make_target("k8s", {**SETTINGS, **settings})
    assert message in str(caught.value)


def test_a_directory_is_no_store_for_pods(job: Any, artifacts: ArtifactStore) -> None:
    with pytest.raises(SpecError, match=r"can't see the store file:.*directory of this machine"):
        prepare(job(), artifacts, make_target("k8s", SETTINGS))


def test_without_kubectl(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(BackendError, match="kubectl is not installed here") as caught:
        make_target("k8s", SETTINGS).findings()
    assert "tlgan render" in (caught.value.hint or "")


DESCRIPTION = {
    "openapi": "3.0.0",
    "info": {"title": "Kubernetes", "version": "1"},
    "paths": {
        PLACE + "/{name}": {
            "patch": {
                "x-kubernetes-action": "patch",
                "x-kubernetes-group-version-kind": {"group": "ray.io", "version": "v1", "kind": "RayJob"},
                "parameters": [{"name": "fieldValidation", "in": "query", "schema": {"type": "string"}}],
            }
        }
    },
}
"""Says that this server checks the fields itself; without it kubectl would ask for a schema."""


class Kubernetes(LoopbackServer):
    """As much of an API server as kubectl asks of it for one kind of resource. `jobs` are what was created, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.jobs: dict[str, Any] = {}

    def handle(self, request: http.server.BaseHTTPRequestHandler) -> None:
        path, _, _ = request.path.partition("?")
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        status, answer = self.answer(request.command, path, json.loads(body) if body[:1] == b"{" else {})
        data = json.dumps(answer).encode()
        request.send_response(status)
        request.send_header("Content-Type", "application/json")
        request.send_header("Content-Length", str(len(data)))
        request.end_headers()
        request.wfile.write(data)

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        group = {"groupVersion": "ray.io/v1", "version": "v1"}
        resource = {"name": "rayjobs", "singularName": "rayjob", "namespaced": True, "kind": "RayJob"}
        fixed = {
            "/api": {"kind": "APIVersions", "versions": ["v1"]},
            "/api/v1": {"kind": "APIResourceList", "groupVersion": "v1", "resources": []},
            "/apis": {
                "kind": "APIGroupList",
                "apiVersion": "v1",
                "groups": [{"name": "ray.io", "versions": [group], "preferredVersion": group}],
            },
            "/apis/ray.io/v1": {
                "kind": "APIResourceList",
                "groupVersion": "ray.io/v1",
                "resources": [{**resource, "verbs": ["create", "get", "delete", "list", "patch"]}],
            },
            "/openapi/v3": {"paths": {"apis/ray.io/v1": {"serverRelativeURL": "/openapi/v3/apis/ray.io/v1"}}},
            "/openapi/v3/apis/ray.io/v1": DESCRIPTION,
        }
        name = path.removeprefix(PLACE).strip("/")
        if method == "GET" and path in fixed:
            return 200, fixed[path]
        if path == PLACE and method == "POST":
            self.jobs[body["metadata"]["name"]] = body
            return 201, body
        if path.startswith(PLACE) and name in self.jobs:
            return 200, self.jobs.pop(name) if method == "DELETE" else self.jobs[name]
        return 404, {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}


@pytest.fixture
def kubernetes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kubernetes]:
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed")
    server = Kubernetes()
    config = {
        "apiVersion": "v1", "kind": "Config", "current-context": "test", "users": [{"name": "me", "user": {}}],
        "clusters": [{"name": "test", "cluster": {"server": server.endpoint}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "me"}}],
    }  # fmt: skip
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(config))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    monkeypatch.setenv("HOME", str(tmp_path))
    yield server
    server.close()


def test_submit_applies_and_stop_deletes(bucket: str, spec: Path, run: Run, kubernetes: Kubernetes) -> None:
    Path("tlgan.yaml").write_text(yaml.safe_dump({"targets": {"k8s": SETTINGS}}))
    code, out, err = run("submit", "tiny.yaml", "--on", "k8s")
    assert code == 0, err
    run_id = out.strip()
    (made,) = kubernetes.jobs.values()
    assert made["metadata"]["annotations"]["tlgan/run"] == run_id
    runs = Runs(open_store())
    assert runs.get(run_id).state == "pending"
    assert run("submit", "tiny.yaml", "--on", "k8s")[0] == 4, "it waits to begin"
    made["status"] = {"jobDeploymentStatus": "Failed", "jobStatus": "FAILED", "message": "no image"}
    target = make_target("k8s", SETTINGS)
    said = target.progress((runs.get(run_id).submission or {})["handle"])
    assert (said.state, said.message) == ("ended", "Failed FAILED no image")
    assert run("stop", run_id, "--now")[0] == 0
    assert kubernetes.jobs == {}
    assert runs.get(run_id).state == "stopped"


def test_render_prints_what_another_machine_applies(bucket: str, spec: Path, run: Run) -> None:
    Path("tlgan.yaml").write_text(yaml.safe_dump({"targets": {"k8s": SETTINGS}, "defaults": {"target": "k8s"}}))
    code, out, err = run("render", "tiny.yaml")
    assert code == 0, err
    made = yaml.safe_load(out)
    runs = Runs(open_store())
    record = runs.get(made["metadata"]["annotations"]["tlgan/run"])
    assert record.state == "pending"
    assert runs.get_json(record.id, f"submissions/{made['metadata']['name'].removeprefix('tlgan-')}.json")
    code, _, err = run("render", "tiny.yaml", "--on", "local")
    assert (code, "has nothing to render" in err) == (2, True)
    assert "k8s" in run("target", "ls")[1]

"""One transfer in a process of its own, for `store_speed`: prints seconds, peak memory and requests as JSON.

python -m tests.bench.store_transfers WHAT BUCKET KEY PATH      (the server by TLGAN_S3_ENDPOINT and AWS_*)
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
from boto3.s3.transfer import TransferConfig, create_transfer_manager
from botocore.config import Config

from cluster.store import ArtifactStore, open_store
from cluster.store.s3 import S3Store
from cluster.store.s3_upload import part_size

NAME = "model"


def raw_client(sums: bool | None = None) -> Any:
    """boto3 as it comes: it takes a CRC-32 of what it sends. Without `sums`: over TLS, where some servers refuse those."""
    if sums is None:
        sums = not os.environ["TLGAN_S3_ENDPOINT"].startswith("https:")
    when = "when_supported" if sums else "when_required"
    config = Config(
        s3={"addressing_style": "path"}, request_checksum_calculation=when, response_checksum_validation=when
    )
    region = os.environ.get("AWS_REGION", "us-east-1")
    return boto3.client("s3", endpoint_url=os.environ["TLGAN_S3_ENDPOINT"], region_name=region, config=config)


def raw_upload(bucket: str, key: str, path: Path, sums: bool | None = None) -> Callable[[], object]:
    """A file, or the files of a folder one after the other."""
    client = raw_client(sums)
    client.head_bucket(Bucket=bucket)
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return lambda: [client.upload_file(str(file), bucket, f"{key}/{file.name}") for file in files]


def raw_upload_unsummed(bucket: str, key: str, path: Path) -> Callable[[], object]:
    return raw_upload(bucket, key, path, sums=False)


def raw_upload_10(bucket: str, key: str, path: Path) -> Callable[[], object]:
    """The files of a folder by one transfer manager of ten threads."""
    client = raw_client()
    client.head_bucket(Bucket=bucket)

    def run() -> None:
        with create_transfer_manager(client, TransferConfig(max_concurrency=10)) as manager:
            for future in [manager.upload(str(file), bucket, f"{key}/{file.name}") for file in sorted(path.iterdir())]:
                future.result()

    return run


def raw_download(bucket: str, key: str, path: Path) -> Callable[[], object]:
    client = raw_client()
    client.head_bucket(Bucket=bucket)
    return lambda: client.download_file(bucket, key, str(path))


def push(bucket: str, key: str, path: Path) -> Callable[[], object]:
    """All of it: hashes, lease, blobs, manifest, alias. That the server was probed before is what a node has."""
    artifacts = ArtifactStore(open_store(f"s3://{bucket}/{key}"))
    assert artifacts.store.capabilities
    return lambda: artifacts.push(NAME, path, kind="files")


def pull(bucket: str, key: str, path: Path) -> Callable[[], object]:
    """`path`: the cache; the files are verified there."""
    artifacts = ArtifactStore(open_store(f"s3://{bucket}/{key}"), path)
    assert artifacts.store.capabilities
    return lambda: artifacts.pull(f"{NAME}:latest")


def killed_push(bucket: str, key: str, path: Path) -> Callable[[], object]:
    """Ends itself by SIGKILL when half of the file's pieces, or of its parts, have been sent or are under way."""
    store = open_store(f"s3://{bucket}/{key}")
    assert isinstance(store, S3Store)
    left = [requests_of(path.stat().st_size) // 2]

    def count(request: Any, **_: Any) -> None:
        left[0] -= has_blob_bytes(request)
        if left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    store.client.meta.events.register("before-send.s3", count)
    return lambda: ArtifactStore(store).push(NAME, path, kind="files")


def requests_of(size: int) -> int:
    """How many bring the bytes of a file to a store."""
    rule = S3Store.pieces
    return -(-size // (rule.size if size >= rule.start else part_size(size)))


def has_blob_bytes(request: Any) -> bool:
    return request.method == "PUT" and "/blobs/" in request.url


WAYS = {
    way.__name__: way for way in (raw_upload, raw_upload_unsummed, raw_upload_10, raw_download, push, pull, killed_push)
}


def peak_mib() -> float:
    """Of this program alone: getrusage would count what the parent had when it started this process."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main(what: str, bucket: str, key: str, path: str) -> None:
    requests: Counter[str] = Counter()
    blob_bytes = [0]

    def see(event_name: str, request: Any, **_: Any) -> None:
        requests[event_name.rpartition(".")[2]] += 1
        if has_blob_bytes(request):
            requests["blobs"] += 1
            blob_bytes[0] += int(request.headers.get("Content-Length", 0))

    def watch(client: Any) -> Any:
        client.meta.events.register("before-send.s3", see)
        return client

    original = boto3.session.Session.client
    boto3.session.Session.client = lambda self, *given, **more: watch(original(self, *given, **more))  # type: ignore[method-assign]
    run = WAYS[what](bucket, key, Path(path))
    requests.clear()
    start, used = time.perf_counter(), sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    run()
    seconds = time.perf_counter() - start
    usage = resource.getrusage(resource.RUSAGE_SELF)
    found = {"seconds": seconds, "cpu": sum(usage[:2]) - used, "peak_mib": peak_mib()}
    print(json.dumps({**found, "requests": dict(requests), "blob_bytes": blob_bytes[0]}))


if __name__ == "__main__":
    main(*sys.argv[1:])

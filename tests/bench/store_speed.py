"""Speed of the store against boto3's own transfer manager, same server, same run.

    python -m tests.bench.store_speed [--quick] [--json] [--servers rclone,moto] [--endpoint URL] [--rounds N]

With `--endpoint`, a server that is there already is measured instead (keys by AWS_*); a bucket is made in it and removed.
Each transfer has a process of its own; what it wrote is removed before the next. Seconds are those of the transfer
alone: imports, the first connection and the probe are not counted, on neither side.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from cluster.store import ArtifactStore, open_store
from cluster.store.s3_gate import Gate
from tests.bench.common import PATIENCE, Result, Target, alternate, options, ratio, show, spread
from tests.bench.store_transfers import raw_client, requests_of

MIB = 1 << 20


@dataclass
class Bench:
    """One server. `big`: a file; `many`: a folder of small ones; `peaks`: MiB of every process of ours."""

    server: str
    folder: Path
    big: Path
    many: Path
    rounds: int
    patience: float
    bucket: str = ""
    peaks: list[float] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    targets: list[Target] = field(default_factory=list)

    def run(self) -> None:
        self.bucket = f"bench-{uuid.uuid4().hex[:12]}"
        raw_client().create_bucket(Bucket=self.bucket)
        try:
            ways = [
                ("boto3 upload_file", "raw_upload"),
                ("boto3 without sums", "raw_upload_unsummed"),
                ("tlgan push", "push"),
            ]
            self._whole("push", self.big, 0.9, ways)
            self._whole("pull", self.big, 0.9, [("boto3 download_file", "raw_download"), ("tlgan pull", "pull")])
            ways = [
                ("boto3 upload_file", "raw_upload"),
                ("s3transfer, 10 threads", "raw_upload_10"),
                ("tlgan push", "push"),
            ]
            self._whole("push", self.many, 2.0, ways)
            self._counts()
        finally:
            self._empty()
            with contextlib.suppress(ClientError):  # rclone keeps empty folders now and then
                raw_client().delete_bucket(Bucket=self.bucket)

    def _whole(self, what: str, path: Path, bound: float, ways: list[tuple[str, str]]) -> None:
        size = sum(file.stat().st_size for file in (path.iterdir() if path.is_dir() else [path])) / MIB
        label = f"{what} of {len(list(path.iterdir()))} files" if path.is_dir() else f"{what} of {size:.0f} MiB"
        if what == "pull":
            self._start("raw_upload", "raw", path)
            self._start("push", "store", path)
        runs = {name: self._rate(way, path, size) for name, way in ways}
        values = alternate(runs, self.rounds, self.patience)
        self.rows += [spread(f"{self.server}: {label}, {name}", rates, "MiB/s") for name, rates in values.items()]
        first = ways[0][0]
        for name, _ in ways[1:]:
            found = ratio(values[name], values[first])
            if name.startswith("tlgan"):
                self.targets.append(Target(f"{self.server}: {label}, times {first}", ">=", bound, found))
            else:
                self.rows.append(spread(f"{self.server}: {label}, {name}, times {first}", [found], "times"))
        self._empty()

    def _rate(self, way: str, path: Path, size: float) -> Callable[[], float]:
        def run() -> float:
            into = self.folder / "into"
            if way == "raw_download":
                found = self._start(way, f"raw/{path.name}", into)
            elif way == "pull":
                found = self._start(way, "store", into)
                self.peaks.append(found["peak_mib"])
            else:
                found = self._start(way, f"store-{uuid.uuid4().hex[:8]}", path)
                self.peaks += [found["peak_mib"]] if way == "push" else []
                self._empty()
            shutil.rmtree(into) if into.is_dir() else into.unlink(missing_ok=True)
            return size / float(found["seconds"])

        return run

    def _counts(self) -> None:
        """What is asked and sent again."""
        self._start("push", "again", self.many)
        again = self._start("push", "again", self.many)
        self._start("pull", "again", self.folder / "into")
        warm = self._start("pull", "again", self.folder / "into")
        shutil.rmtree(self.folder / "into")
        self._start("killed_push", "killed", self.big, killed=True)
        size = self.big.stat().st_size
        parts = requests_of(size)
        resent = parts // 2 + self._start("push", "killed", self.big)["requests"].get("blobs", 0) - parts
        self.targets += [
            Target(f"{self.server}: blob bytes of a re-push", "<=", 0, again["blob_bytes"]),
            Target(
                f"{self.server}: requests of a warm pull",
                "<=",
                3,
                sum(warm["requests"].values()) - warm["requests"].get("blobs", 0),
            ),
            Target(f"{self.server}: parts that a killed push sends again", "<=", Gate().most, resent),
            Target(f"{self.server}: peak MiB of a process", "<", 200, max(self.peaks)),
        ]

    def _start(self, what: str, key: str, path: Path, killed: bool = False) -> dict[str, Any]:
        command = [sys.executable, "-m", "tests.bench.store_transfers", what, self.bucket, key, str(path)]
        found = subprocess.run(command, check=False, capture_output=True, text=True)
        if killed and found.returncode < 0:
            return {}
        if found.returncode:
            raise RuntimeError(f"{what} of {path} failed:\n{found.stderr}")
        return dict(json.loads(found.stdout))

    def _empty(self) -> None:
        client = raw_client()
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket):
            for item in page.get("Contents", []):
                client.delete_object(Bucket=self.bucket, Key=item["Key"])


def directory(folder: Path, big: Path, rounds: int, patience: float) -> list[dict[str, Any]]:
    """The directory backend beside a copy whose bytes are hashed afterwards."""
    size = big.stat().st_size / MIB

    def copy() -> float:
        start = time.perf_counter()
        shutil.copy(big, folder / "copy")
        with (folder / "copy").open("rb") as file:
            hashlib.file_digest(file, "sha256")
        seconds = time.perf_counter() - start
        (folder / "copy").unlink()
        return size / seconds

    def push_and_pull(pulling: bool) -> float:
        artifacts = ArtifactStore(open_store(str(folder / "store")), folder / "pulled")
        start = time.perf_counter()
        artifacts.push("big", big, kind="files")
        if pulling:
            start = time.perf_counter()
            artifacts.pull("big:latest")
        seconds = time.perf_counter() - start
        for made in ("store", "pulled"):
            shutil.rmtree(folder / made, ignore_errors=True)
        return size / seconds

    runs = {"copy and sha256": copy, "push": lambda: push_and_pull(False), "pull": lambda: push_and_pull(True)}
    values = alternate(runs, rounds, patience)
    return [spread(f"directory: {size:.0f} MiB, {name}", rates, "MiB/s") for name, rates in values.items()]


@contextlib.contextmanager
def running(name: str, folder: Path) -> Iterator[None]:
    """A server of the tests, and the environment that leads to it."""
    sys.path.insert(0, str(Path(__file__).parents[1]))  # where pytest finds it too
    import servers

    starter = {"rclone": servers._rclone, "moto": servers._moto}[name]
    with starter(folder, tls=False) as server:
        os.environ.update(server.environment)
        yield


def write_tensor(path: Path, size: int) -> None:
    """A safetensors file of `size` bytes with one tensor of noise."""
    header = b'{"x":{"dtype":"U8","shape":[%d],"data_offsets":[0,%d]}}' % (size - 128, size - 128)
    with path.open("wb") as file:
        file.write((120).to_bytes(8, "little") + header.ljust(120))
        for start in range(128, size, MIB):
            file.write(os.urandom(min(MIB, size - start)))


def measure(
    quick: bool = False,
    names: str = "rclone,moto",
    endpoint: str | None = None,
    rounds: int = 0,
    patience: float | None = None,
) -> Result:
    size, count = (40, 50) if quick else (512, 500)
    rounds = rounds or (1 if quick else 5)
    patience = (0 if quick else PATIENCE) if patience is None else patience
    rows: list[dict[str, Any]] = []
    targets: list[Target] = []
    before = dict(os.environ)
    with tempfile.TemporaryDirectory(prefix="tlgan-bench-") as temporary:
        folder = Path(temporary)
        os.environ["TLGAN_CACHE"] = str(folder / "cache")
        (folder / "many").mkdir()
        big = folder / "big.safetensors"
        write_tensor(big, size * MIB)
        for number in range(count):
            write_tensor(folder / "many" / f"{number}.safetensors", 64 << 10)
        try:
            for name in [endpoint] if endpoint else names.split(","):
                os.environ["TLGAN_S3_ENDPOINT"] = endpoint or ""
                (folder / "server").mkdir()
                with contextlib.nullcontext() if endpoint else running(name, folder / "server"):
                    bench = Bench(name, folder, big, folder / "many", rounds, patience)
                    bench.run()
                shutil.rmtree(folder / "server")
                rows, targets = rows + bench.rows, targets + bench.targets
            rows += directory(folder, big, rounds, patience)
        finally:
            os.environ.clear()
            os.environ.update(before)
    notes = [f"medians over {rounds} rounds; transfers at once: up to {Gate().most}"]
    return Result("store_speed", quick, rows, targets, notes)


def main() -> int:
    parser = options(__doc__ or "")
    parser.add_argument("--servers", default="rclone,moto", help="servers to start: rclone,moto")
    parser.add_argument("--endpoint", help="a server that is there already")
    parser.add_argument("--rounds", type=int, default=0)
    parser.add_argument("--patience", type=float, help="seconds to wait for an idle machine before each run")
    given = parser.parse_args()
    return show(measure(given.quick, given.servers, given.endpoint, given.rounds, given.patience), given.json)


if __name__ == "__main__":
    sys.exit(main())

"""The code of a run travels with it: an artifact of this tlgan's own sources, by digest, unpacked where the run is driven.

    tlgan-code@<digest>    one file, code.zip: the packages tlgan, cluster and jobs as they are here, the same bytes from anywhere

A run goes on with the code it was submitted with, whatever is installed or edited meanwhile. Nothing of it is imported by
the process that unpacks it; the run's driver is another process.
"""

from __future__ import annotations

import hashlib
import io
import shutil
import sys
import tempfile
import zipfile
from functools import lru_cache
from importlib import metadata
from pathlib import Path, PurePosixPath

import tlgan
from cluster.store import ArtifactStore
from tlgan.data import cache_root
from tlgan.errors import IntegrityError
from tlgan.manifest import Manifest

PACKAGES = ("tlgan", "cluster", "jobs")
ARTIFACT = "tlgan-code"
FILE = "code.zip"
MAX_UNPACKED = 64 << 20
_EPOCH = (1980, 1, 1, 0, 0, 0)
VARIABLE = "TLGAN_CODE"
"""In the environment of a run's processes: the folder with the packages they run from."""


def root() -> Path:
    """The folder that holds the three packages that this process runs from."""
    return Path(tlgan.__file__).parent.parent


@lru_cache(maxsize=1)
def code_digest() -> str:
    """sha256 over the library's sources: another tlgan does not pass off old results as its own."""
    library = root() / "tlgan"
    total = hashlib.sha256()
    for file in sorted(library.rglob("*.py")):
        if "report" not in file.relative_to(library).parts:
            total.update(file.relative_to(library).as_posix().encode() + b"\0" + file.read_bytes())
    return total.hexdigest()


def bundle() -> bytes:
    """The zip of all packages' files. Equal sources give equal bytes."""
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive:
        for package in PACKAGES:
            for file in sorted((root() / package).rglob("*")):
                if file.is_file() and "__pycache__" not in file.parts:
                    info = zipfile.ZipInfo(file.relative_to(root()).as_posix(), _EPOCH)
                    info.compress_type = zipfile.ZIP_DEFLATED
                    archive.writestr(info, file.read_bytes())
    return held.getvalue()


def push_code(artifacts: ArtifactStore) -> Manifest:
    """Publishes the code of this process; what the store has already is not sent again."""
    with tempfile.TemporaryDirectory(prefix="tlgan-code-") as folder:
        file = Path(folder) / FILE
        file.write_bytes(bundle())
        facts = {"version": tlgan.__version__, "code": code_digest()}
        return artifacts.push(ARTIFACT, {FILE: file}, kind="code", facts=facts)


def fetch_code(artifacts: ArtifactStore, ref: str) -> Path:
    """The folder with the packages of a code artifact, verified and unpacked once on this machine."""
    manifest = artifacts.resolve(ref)
    entry = next((entry for entry in manifest.files if entry.path == FILE), None)
    if manifest.kind != "code" or entry is None:
        raise IntegrityError(f"{ref} is no code of tlgan")
    folder = cache_root() / "code" / entry.sha256
    if not folder.is_dir():
        _unpack(artifacts.file(entry), folder)
    return folder


def _unpack(file: Path, folder: Path) -> None:
    """Whole or not at all, and only plain files below the three packages. Raises `IntegrityError`."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".unpack-", dir=folder.parent))
    try:
        with zipfile.ZipFile(file) as archive:
            if sum(info.file_size for info in archive.infolist()) > MAX_UNPACKED:
                raise IntegrityError(f"{file} unpacks to more than {MAX_UNPACKED} bytes, which no code of tlgan does")
            for info in archive.infolist():
                path = PurePosixPath(info.filename)
                if path.is_absolute() or ".." in path.parts or path.parts[0] not in PACKAGES:
                    raise IntegrityError(f"{file} has a file {info.filename!r} that is none of tlgan's")
                (temporary / path).parent.mkdir(parents=True, exist_ok=True)
                (temporary / path).write_bytes(archive.read(info))
        temporary.rename(folder)
    except zipfile.BadZipFile as error:
        raise IntegrityError(f"{file} is no zip file: {error}") from None
    except OSError:
        if not folder.is_dir():  # somebody else unpacked it meanwhile
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def environment() -> dict[str, object]:
    """What a run was submitted from: Python, system, and every installed package with its version. No values of variables."""
    packages = {dist.metadata["Name"]: dist.version for dist in metadata.distributions()}
    return {
        "python": ".".join(map(str, sys.version_info[:3])),
        "platform": sys.platform,
        "packages": dict(sorted(packages.items(), key=lambda pair: str(pair[0]).lower())),
    }

"""The artifact store: a directory or a bucket that holds everything published, verified on the way in and out.

    store = ArtifactStore(open_store("s3://bucket/prefix"))
    manifest = store.push("digits32", Path("model"), kind="gan")
    path = store.pull("digits32:latest")

boto3 is imported only when an `s3://` URL is opened.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from cluster.store.aliases import ABSENT, Alias
from cluster.store.base import Capabilities, ObjectInfo, Store, scrub
from cluster.store.layout import Version
from cluster.store.protocol import ArtifactStore
from cluster.store.verifying import VerifyReport
from tlgan.errors import SpecError
from tlgan.naming import check_path

__all__ = [
    "ABSENT",
    "Alias",
    "ArtifactStore",
    "Capabilities",
    "ObjectInfo",
    "Store",
    "VerifyReport",
    "Version",
    "check_endpoint",
    "default_url",
    "open_store",
    "s3_endpoint",
]

FORMS = "a store is file:///path/to/directory (or just the path) or s3://bucket/prefix"
_ENDPOINTS = ("TLGAN_S3_ENDPOINT", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")


def default_url() -> str:
    """`$TLGAN_STORE`, or the directory `.tlgan/store` below the current one."""
    return os.environ.get("TLGAN_STORE") or (Path.cwd() / ".tlgan" / "store").as_uri()


def s3_endpoint() -> str | None:
    """The custom S3 endpoint that the environment names, or None for Amazon's. Raises `SpecError`."""
    for variable in _ENDPOINTS:
        if endpoint := os.environ.get(variable):
            return check_endpoint(variable, endpoint)
    return None


def check_endpoint(what: str, endpoint: str) -> str:
    """`endpoint` itself. Raises `SpecError`, which names `what` it is."""
    if "@" in endpoint:
        hint = "put the key into AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        raise SpecError(f"{what} has a user or a password in it", hint=hint)
    parts = urlsplit(endpoint)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise SpecError(
            f"{what} is {scrub(endpoint)!r}; expected http(s)://host[:port]",
            hint="as in http://127.0.0.1:9000",
        )
    return endpoint


def open_store(url: str | None = None, *, endpoint: str | None = None, profile: str | None = None) -> Store:
    """Opens, without touching, `url` (default: `default_url()`). Raises `SpecError` for another kind of URL.

    `endpoint` and `profile` (of the AWS configuration files) are for a bucket that is not where the environment says.
    """
    url = url or default_url()
    if url.startswith("s3://"):
        from cluster.store.s3 import S3Store

        bucket, prefix = _bucket_and_prefix(url)
        return S3Store(bucket, prefix, endpoint or s3_endpoint(), profile)
    from cluster.store.local import DirectoryStore

    return DirectoryStore(_directory(url))


def _directory(url: str) -> Path:
    if url.startswith("file://"):
        path = url.removeprefix("file://").removeprefix("localhost")
        if not path.startswith("/"):
            raise SpecError(f"{scrub(url)!r} is no directory's URL: it needs three slashes", hint=FORMS)
        return Path(unquote(path))
    if re.match(r"[A-Za-z0-9+.-]{2,}:", url):
        raise SpecError(f"{scrub(url)!r} is no store that tlgan knows", hint=FORMS)
    return Path(url).expanduser()


def _bucket_and_prefix(url: str) -> tuple[str, str]:
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    if "@" in url or "?" in url or "#" in url or ":" in bucket:
        hint = "credentials come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, the server from TLGAN_S3_ENDPOINT"
        raise SpecError(f"{scrub(url)!r} is not just s3://bucket/prefix", hint=hint)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{1,62}", bucket):
        raise SpecError(f"{scrub(url)!r} names no valid bucket", hint=FORMS)
    prefix = prefix.strip("/")
    try:
        return bucket, check_path(prefix) if prefix else ""
    except SpecError as error:
        raise SpecError(f"prefix of {scrub(url)!r}: {error.message}", hint=FORMS) from None

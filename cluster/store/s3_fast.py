"""Puts of small objects by obstore (`pip install 'tlgan[fast]'`), whose requests are made and signed outside Python's lock.

Only for servers whose ETags are known to be the md5 of what they received: obstore can't send Content-MD5, so that the answer
is what tells damage. Whatever it does not do, the client is asked for.
"""

from __future__ import annotations

import os
from importlib.metadata import PackageNotFoundError, version
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from cluster.store.s3_receipt import Receipts, encryption

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

MOST = 1 << 20  # bytes; a put must end within the timeout on slow lines too
TIMES = {"connect_timeout": "3s", "timeout": "60s"}
_begun_in = 0
"""The process that used obstore first."""


class FastPut:
    """For custom endpoints whose certificates need no file of their own, and without encryption settings."""

    def __init__(self, client: S3Client, endpoint: str | None, bucket: str, receipts: Receipts) -> None:
        self.client, self.endpoint, self.bucket, self.receipts = client, endpoint or "", bucket, receipts
        self.usable = bool(endpoint) and not encryption() and not _own_certificates(self.endpoint)
        self._made: tuple[Any, Any] | None = None

    def __call__(self, key: str, data: bytes) -> dict[str, Any] | None:
        """The server's answer as the client would give it, {} when there was none, None when it was not tried."""
        if not self.usable or not self.receipts.etags_are_md5 or len(data) > MOST or _is_forked():
            return None
        try:
            import obstore

            store = self._store()
        except (ImportError, AttributeError):  # not installed, another botocore, or no key
            self.usable = False
            return None
        headers = {"Content-Length": str(len(data))}
        url = f"{self.endpoint}/{self.bucket}/{quote(key)}"
        request = SimpleNamespace(method="PUT", url=url, headers=headers, body=data)
        heard = self.client.meta.events.emit("before-send.s3.PutObject", request=request)
        if any(answer is not None for _, answer in heard):
            return {}
        body = request.body if isinstance(request.body, bytes) else request.body.read()
        try:
            return {"ETag": obstore.put(store, key, body, use_multipart=False)["e_tag"] or ""}
        except obstore.exceptions.BaseError:
            return {}

    def describe(self) -> str:
        """Who puts small objects, for people."""
        if not self.usable:
            return "by boto3: obstore is not used at Amazon's own address, with encryption settings or own certificates"
        try:
            return f"by obstore {version('obstore')}, where ETags are md5"
        except PackageNotFoundError:
            return "by boto3; pip install 'tlgan[fast]' makes many small files faster"

    def _store(self) -> Any:
        """Made anew when the client's keys change, as those of a role do."""
        from obstore.store import S3Store

        keys = self.client._request_signer._credentials.get_frozen_credentials()  # type: ignore[attr-defined]
        if self._made is None or self._made[0] != keys:
            options: Any = {"allow_http": True, **TIMES}
            store = S3Store(
                self.bucket,
                endpoint=self.endpoint.rstrip("/"),
                region=self.client.meta.region_name,
                access_key_id=keys.access_key,
                secret_access_key=keys.secret_key,
                **({"session_token": keys.token} if keys.token else {}),
                virtual_hosted_style_request=False,
                client_options=options,
                retry_config={"max_retries": 0},
            )
            self._made = keys, store
        return self._made[1]


def _is_forked() -> bool:
    """obstore's threads don't come along into a forked process, which would wait for them for ever."""
    global _begun_in
    _begun_in = _begun_in or os.getpid()
    return _begun_in != os.getpid()


def _own_certificates(endpoint: str) -> bool:
    names = ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE")
    return endpoint.startswith("https:") and any(os.environ.get(name) for name in names)

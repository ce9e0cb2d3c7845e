"""Puts of blobs and parts without the client's machinery, which costs more than a short transfer: signed by botocore's signer,
sent by the client's own connections.

Only a plain success counts. Whatever else the server says, the client is asked to do the same put, with its retries and errors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.exceptions import BotoCoreError
from botocore.hooks import first_non_none_response

from cluster.store.s3_receipt import encryption, with_md5

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client


class QuickPut:
    """For custom endpoints, where addresses are of the path style, and without encryption settings."""

    def __init__(self, client: S3Client, endpoint: str | None, bucket: str) -> None:
        self.client, self.url = client, f"{(endpoint or '').rstrip('/')}/{bucket}/"
        self.context = {"client_config": client.meta.config}
        self.usable = bool(endpoint) and not encryption()

    def __call__(
        self,
        key: str,
        data: bytes,
        md5: bytes | None,
        part: tuple[str, int] | None = None,
        crc: str | None = None,
    ) -> dict[str, Any] | None:
        """The server's answer as the client would give it, or None: ask the client. `part`: name of the upload and number."""
        if not self.usable:
            return None
        try:
            sender = self.client._endpoint.http_session  # type: ignore[attr-defined]
            credentials = self.client._request_signer._credentials.get_frozen_credentials()  # type: ignore[attr-defined]
        except AttributeError:  # another botocore, or no key
            self.usable = False
            return None
        headers = {"Content-Length": str(len(data))}
        if md5 is not None:
            headers["Content-MD5"] = with_md5(data, md5)["ContentMD5"]
        if crc is not None:
            headers["x-amz-checksum-crc32"] = crc
        where = {"partNumber": part[1], "uploadId": part[0]} if part else {}
        request = AWSRequest("PUT", self.url + quote(key, safe="/~"), headers=headers, data=data, params=where)
        request.context.update(self.context)
        S3SigV4Auth(credentials, "s3", self.client.meta.region_name).add_auth(request)
        prepared = request.prepare()
        operation = "UploadPart" if part else "PutObject"
        heard = self.client.meta.events.emit(f"before-send.s3.{operation}", request=prepared)
        try:
            answer = first_non_none_response(heard) or sender.send(prepared)
        except BotoCoreError:
            return None
        if answer.status_code != 200 or not (etag := answer.headers.get("ETag")):
            return None
        return {"ETag": etag, "ServerSideEncryption": answer.headers.get("x-amz-server-side-encryption", "")}

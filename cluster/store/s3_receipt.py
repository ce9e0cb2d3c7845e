"""Nothing counts as stored before the server confirmed it: its ETag is held against the md5 of what was sent.

An ETag is the md5 where neither multipart nor a key of KMS is used, on all servers we met; one where it is not is found
out, and small objects are read back there.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
from collections.abc import Mapping
from typing import Any

from tlgan.errors import SpecError

KINDS = ("AES256", "aws:kms")


def md5_of(data: bytes | memoryview) -> bytes:
    return hashlib.md5(data, usedforsecurity=False).digest()


def crc_as_sent(crc: int) -> str:
    """A CRC-32 as the protocol writes it."""
    return base64.b64encode(crc.to_bytes(4, "big")).decode()


def with_md5(data: bytes, md5: bytes) -> dict[str, Any]:
    """Body and Content-MD5: servers that enforce it refuse a body damaged on the way."""
    return {"Body": data, "ContentMD5": base64.b64encode(md5).decode()}


class Receipts:
    """`etags_are_md5`: what was learned of this server; None before the first answer."""

    def __init__(self) -> None:
        self.etags_are_md5: bool | None = None

    def confirms(self, answer: Mapping[str, Any], md5: bytes) -> bool | None:
        """True: stored as sent. False: the server names something else. None: its word says nothing of the content."""
        etag = str(answer.get("ETag", "")).strip('"')
        if etag == md5.hex():
            self.etags_are_md5 = True
            return True
        if str(answer.get("ServerSideEncryption", "")).startswith("aws:kms"):  # there Content-MD5 is enforced
            return True
        is_md5 = self.etags_are_md5 is not False and re.fullmatch(r"[0-9a-f]{32}", etag)
        return False if is_md5 else None


def encryption() -> dict[str, str]:
    """Arguments of every put for `TLGAN_S3_SSE` (`AES256` or `aws:kms`) and `TLGAN_S3_SSE_KMS_KEY_ID`. Raises `SpecError`."""
    kind, key = os.environ.get("TLGAN_S3_SSE", ""), os.environ.get("TLGAN_S3_SSE_KMS_KEY_ID", "")
    if kind not in ("", *KINDS):
        raise SpecError(f"TLGAN_S3_SSE is {kind!r}; expected {' or '.join(KINDS)}", hint="or leave it out")
    if key and kind != "aws:kms":
        raise SpecError("TLGAN_S3_SSE_KMS_KEY_ID is set, and TLGAN_S3_SSE is not", hint="set TLGAN_S3_SSE=aws:kms")
    found = {"ServerSideEncryption": kind, "SSEKMSKeyId": key}
    return {name: value for name, value in found.items() if value}

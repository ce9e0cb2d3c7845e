"""A proxy's rule that gives a client the rights of a policy, before servers that check none."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase
from urllib.parse import parse_qs, unquote, urlsplit

from dialects import Dialect, Proxy


class Enforces(Dialect):
    """Answers 403 to what no statement allows or one denies."""

    def __init__(self) -> None:
        self.statements: list[dict[str, list[str]]] | None = None

    def before(self, proxy: Proxy, method: str, path: str, headers: dict[str, str]) -> int | None:
        if self.statements is None:
            return None
        place, query = unquote(urlsplit(path).path).strip("/"), parse_qs(urlsplit(path).query, keep_blank_values=True)
        return None if all(self._allowed(*asked) for asked in self._asked(method, place, query)) else 403

    def _asked(self, method: str, place: str, query: dict[str, list[str]]) -> Iterator[tuple[str, str]]:
        arn = f"arn:aws:s3:::{place}"
        if "/" not in place:
            yield ("s3:ListBucketMultipartUploads" if "uploads" in query else "s3:ListBucket"), arn
        elif method == "DELETE":
            yield ("s3:AbortMultipartUpload" if "uploadId" in query else "s3:DeleteObject"), arn
        elif method in ("GET", "HEAD"):
            yield ("s3:ListMultipartUploadParts" if "uploadId" in query else "s3:GetObject"), arn
        else:
            yield "s3:PutObject", arn

    def _allowed(self, action: str, arn: str) -> bool:
        found = {
            statement["Effect"]  # type: ignore[index]
            for statement in self.statements or []
            if action in statement["Action"] and any(fnmatchcase(arn, pattern) for pattern in statement["Resource"])
        }
        return found == {"Allow"}  # type: ignore[comparison-overlap]

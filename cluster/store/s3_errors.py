"""What S3 servers and the network say, as errors of tlgan. No secret passes: messages are scrubbed, causes are cut."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    PartialCredentialsError,
    ResponseStreamingError,
    SSLError,
)
from botocore.exceptions import ConnectionError as CantConnect
from urllib3.exceptions import HTTPError as StreamError

from cluster.store.base import scrub
from tlgan.errors import BackendError, NotFound, Refused

MAX_SAID = 400  # characters of what a server says that are repeated
_MISSING = {"NoSuchKey", "NotFound", "404"}
_REFUSED = {"AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "Forbidden"}
_CONDITION = {"PreconditionFailed", "ConditionalRequestConflict", "ConcurrentModification"}

_BUSY = {"SlowDown", "Throttling", "ThrottlingException", "RequestLimitExceeded", "RequestTimeout", "TooManyRequests"}

# A body that breaks off or does not have its length; worth asking again.
BROKEN_STREAM = (StreamError, ResponseStreamingError, IncompleteReadError, ConnectionError)


def status_of(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def condition_failed(error: ClientError) -> bool:
    """The server compared and said no: 412, or 409 when two writers met."""
    return status_of(error) == 412 or (status_of(error) == 409 and code_of(error) in _CONDITION)


def refuses_condition(error: ClientError) -> bool:
    """The server does not know the condition."""
    return status_of(error) == 501 or code_of(error) == "NotImplemented"


def code_of(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def wants_slower(error: ClientError) -> bool:
    """The server is there and has too much to do."""
    return status_of(error) in (429, 503) or code_of(error) in _BUSY


def was_damaged(error: ClientError) -> bool:
    """The body that arrived is not the one that was signed or summed."""
    return code_of(error) in {"BadDigest", "XAmzContentSHA256Mismatch"}


def is_missing(error: ClientError) -> bool:
    return code_of(error) in _MISSING


@contextlib.contextmanager
def s3_errors(url: str, endpoint: str | None, key: str = "", *, through_conditions: bool = False) -> Iterator[None]:
    """Wraps calls of the client. `NotFound` for a missing key, `BackendError` with the place for everything else.

    With `through_conditions`, a condition that failed or is not known stays the `ClientError` it is.
    """
    place = f"store {url}" + (f" at {scrub(endpoint)}" if endpoint else "")
    try:
        yield
    except ClientError as error:
        if through_conditions and (condition_failed(error) or refuses_condition(error)):
            raise
        raise _refusal(error, place, url, key) from None
    except (NoCredentialsError, PartialCredentialsError):
        hint = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
        raise Refused(f"{place}: no credentials found", hint=hint) from None
    except SSLError as error:
        raise BackendError(f"{place} can't be reached: {scrub(error)}", hint=_trust()) from None
    except (CantConnect, HTTPClientError, StreamError, IncompleteReadError, ConnectionError) as error:
        hint = "is the server up, and are TLGAN_S3_ENDPOINT (or AWS_ENDPOINT_URL) and the network right?"
        raise BackendError(f"{place} can't be reached: {scrub(error)}", hint=hint) from None
    except BotoCoreError as error:
        raise BackendError(f"{place}: {type(error).__name__}: {scrub(error)}") from None


def _trust() -> str:
    bundle = os.environ.get("AWS_CA_BUNDLE")
    if not bundle:
        return "for a server with a certificate of its own, set AWS_CA_BUNDLE to the file (PEM) of its authority"
    return f"AWS_CA_BUNDLE is {bundle}" + ("" if os.path.exists(bundle) else ", which does not exist")


def _refusal(error: ClientError, place: str, url: str, key: str) -> Exception:
    code = code_of(error)
    if is_missing(error):
        return NotFound(f"{key or 'object'} does not exist in {url}")
    if code == "NoSuchBucket":
        return Refused(f"{place}: the bucket does not exist", hint="create it, or correct --store")
    if code in _REFUSED or status_of(error) in (401, 403):
        hint = "check the access key, its secret and what the key may do in this bucket"
        return Refused(f"{place} refuses the credentials for {error.operation_name}: {code}", hint=hint)
    said = scrub(error.response.get("Error", {}).get("Message", ""))[:MAX_SAID]
    return BackendError(f"{place} answers {status_of(error)} {code} to {error.operation_name} of {key!r}: {said}")

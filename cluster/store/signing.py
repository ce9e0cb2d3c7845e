"""Detached signatures of manifests: who holds the key vouches for an artifact, whoever can write to the store.

    openssl genpkey -algorithm ed25519 -out sign.pem          the private key, for `tlgan push --sign-key`
    openssl pkey -in sign.pem -pubout -out verify.pem         the public one, for `tlgan pull --verify-key`

`signatures/<name>/<version>.<key id>.sig` holds an Ed25519 signature of the artifact's name and the manifest's digest, and
with the digest every byte. An alias is not signed: it says which version is meant, and may be moved to an older signed one.
A file of public keys may hold several; the signature of one of them is enough. Needs the package cryptography.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, ValidationError

from cluster.store.base import Store
from cluster.store.layout import Version, signature_prefix
from tlgan.canonical import canonical_json
from tlgan.errors import IntegrityError, NotFound, SpecError
from tlgan.manifest import Manifest, Record, Sha256

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

SIGN_VARIABLE, VERIFY_VARIABLE = "TLGAN_SIGN_KEY", "TLGAN_VERIFY_KEY"
MAX_BYTES = 4096
MAX_KEY_FILE = 64 << 10
_DOMAIN = b"tlgan manifest signature 1\0"
_PUBLIC = re.compile(rb"-----BEGIN PUBLIC KEY-----.*?-----END PUBLIC KEY-----", re.DOTALL)


class Signature(Record):
    """`key`: the first 16 digits of the sha256 of the raw public key; `signature` in hexadecimal digits."""

    format: Literal[1] = 1
    algorithm: Literal["ed25519"] = "ed25519"
    key: str = Field(pattern=r"^[0-9a-f]{16}$")
    name: str
    digest: Sha256
    signature: str = Field(pattern=r"^[0-9a-f]{128}$")


def sign_key(given: Path | None = None) -> Path | None:
    """The file of the private key in force: `given`, or that of `$TLGAN_SIGN_KEY`."""
    return given or _from(SIGN_VARIABLE)


def verify_key(given: Path | None = None) -> Path | None:
    """The file of the public keys in force: `given`, or that of `$TLGAN_VERIFY_KEY`."""
    return given or _from(VERIFY_VARIABLE)


def sign(store: Store, manifest: Manifest, key_file: Path) -> str:
    """Signs a published artifact; returns the id of the key. Signing again is no error. Raises `SpecError` for the key."""
    private = read_private(key_file)
    key = key_id(private.public_key())
    signature = private.sign(_message(manifest)).hex()
    record = Signature(key=key, name=manifest.name, digest=manifest.digest, signature=signature)
    store.put(signature_prefix(Version.of(manifest)) + f"{key}.sig", canonical_json(record.model_dump()))
    return key


def check_signature(store: Store, manifest: Manifest, key_file: Path) -> str:
    """The id of a key in `key_file` that vouches for the artifact. Raises `IntegrityError` when none does."""
    keys = read_public(key_file)
    prefix = signature_prefix(Version.of(manifest))
    for key, public in keys.items():
        try:
            data = store.get(f"{prefix}{key}.sig", max_bytes=MAX_BYTES)
        except NotFound:
            continue
        _check(data, manifest, key, public, store.url)
        return key
    others = [info.key.removeprefix(prefix).removesuffix(".sig") for info in store.list(prefix)]
    signed = f"it is signed by {', '.join(others)}" if others else "it has no signature"
    hint = "do not use it, unless you know why; its publisher can sign it: tlgan artifact sign REF --key FILE"
    raise IntegrityError(
        f"{manifest.ref} is not signed by the key {' or '.join(keys)} of {key_file}: {signed}", hint=hint
    )


def copy_signatures(source: Store, target: Store, version: Version) -> None:
    """Signatures go where the manifest went, byte for byte."""
    for key, data in read_signatures(source, version).items():
        target.put(key, data)


def read_signatures(store: Store, version: Version) -> dict[str, bytes]:
    """Key -> bytes, as they are stored."""
    return {info.key: store.get(info.key, max_bytes=MAX_BYTES) for info in store.list(signature_prefix(version))}


def drop_signatures(store: Store, version: Version) -> None:
    """When a version is gone for good; one that can be restored keeps them."""
    for info in list(store.list(signature_prefix(version))):
        store.delete(info.key)


def _check(data: bytes, manifest: Manifest, key: str, public: Ed25519PublicKey, url: str) -> None:
    from cryptography.exceptions import InvalidSignature

    hint = "somebody tampered with it, or it is damaged: do not use it"
    try:
        found = Signature.model_validate(json.loads(data))
        public.verify(bytes.fromhex(found.signature), _message(manifest))
    except InvalidSignature:
        raise IntegrityError(f"the signature of {manifest.ref} by {key} in {url} is not genuine", hint=hint) from None
    except (ValueError, RecursionError) as error:
        reason = "not a signature" if isinstance(error, ValidationError) else str(error)
        raise IntegrityError(
            f"the signature of {manifest.ref} by {key} in {url} can't be read: {reason}", hint=hint
        ) from None


def _message(manifest: Manifest) -> bytes:
    return _DOMAIN + manifest.name.encode() + b"\0" + bytes.fromhex(manifest.digest)


def read_private(path: Path) -> Ed25519PrivateKey:
    """Raises `SpecError` for what is no unencrypted Ed25519 private key in PEM; nothing of the file is repeated."""
    serialization, ed25519 = _cryptography()
    data = _read(path)
    hint = f"openssl genpkey -algorithm ed25519 -out {path.name}"
    try:
        key = serialization.load_pem_private_key(data, password=None)
    except TypeError:
        raise SpecError(f"{path} is an encrypted key; expected one without a password", hint=hint) from None
    except Exception:  # ValueError, UnsupportedAlgorithm: their texts may hold parts of the key
        raise SpecError(f"{path} is no private key in PEM", hint=hint) from None
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise SpecError(f"{path} is a key of another kind; expected Ed25519", hint=hint)
    return key  # type: ignore[no-any-return]


def read_public(path: Path) -> dict[str, Ed25519PublicKey]:
    """Key id -> key, of all public keys in the file. Raises `SpecError`."""
    serialization, ed25519 = _cryptography()
    data = _read(path)
    hint = f"openssl pkey -in sign.pem -pubout -out {path.name}"
    if b"PRIVATE KEY" in data:
        raise SpecError(f"{path} is a private key; expected the public one", hint=hint)
    found = {}
    for block in _PUBLIC.findall(data):
        try:
            key = serialization.load_pem_public_key(block)
        except Exception:
            raise SpecError(f"{path} holds a public key that can't be read", hint=hint) from None
        if not isinstance(key, ed25519.Ed25519PublicKey):
            raise SpecError(f"{path} holds a key of another kind; expected Ed25519", hint=hint)
        found[key_id(key)] = key
    if not found:
        raise SpecError(f"{path} holds no public key in PEM", hint=hint)
    return found


def key_id(public: Ed25519PublicKey) -> str:
    return hashlib.sha256(public.public_bytes_raw()).hexdigest()[:16]


def _from(variable: str) -> Path | None:
    return Path(text).expanduser() if (text := os.environ.get(variable)) else None


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_KEY_FILE)
    except OSError as error:
        raise SpecError(f"can't read the key {path}: {error.strerror}") from None


def _cryptography() -> tuple[Any, Any]:
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError:
        hint = "pip install 'tlgan[signing]'"
        raise SpecError("signatures need the package cryptography, which is not installed", hint=hint) from None
    return serialization, ed25519

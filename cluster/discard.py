"""Removing what nobody needs any more, which a worker's key may not do (`infra/s3`): nothing may depend on it."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from cluster.store.base import Store
from tlgan.errors import Refused

log = logging.getLogger("tlgan.discard")


def discard(store: Store, keys: Iterable[str]) -> bool:
    """Removes `keys` in order. False without the right to: the rest stays until a collector takes it."""
    for key in keys:
        try:
            store.delete(key)
        except Refused as error:
            log.debug("%s stays for a collector: %s", key, error)
            return False
    return True

"""Blobs that are in a store before the manifest that names them, as more processes of `protocol_model.py`."""

from __future__ import annotations

from faults.model import Process
from faults.protocol_model import ATTEMPTS, Rules, condemned_names, drop_lease, elsewhere, place, push, take_lease


def stage_and_commit(me: str, contents: tuple[str, ...], rules: Rules) -> Process:
    """A draft under a pin, which nobody renews, committed later."""
    keys, pin = contents, f"pin-{me}"
    for attempt in range(1, ATTEMPTS + 1):
        yield take_lease(pin, frozenset(keys), None)
        condemned = yield from condemned_names(rules)
        if condemned.isdisjoint(keys):
            yield from place(keys, True)
            break
        keys = yield from elsewhere(keys, condemned, f"{pin}{attempt}")
    else:
        return
    yield from push(me, keys, rules, has_files=False)


def push_in_pieces(me: str, contents: tuple[str, ...], rules: Rules) -> Process:
    """Each key is leased and placed before the next one is known; the version's own lease comes when all are there."""
    keys, held = [], list[str]()
    for number, content in enumerate(contents):
        wanted: tuple[str, ...] = (content,)
        for attempt in range(1, ATTEMPTS + 1):
            held.append(f"{me}.{number}.{attempt}")
            yield take_lease(held[-1], frozenset(wanted), None)
            condemned = yield from condemned_names(rules)
            if condemned.isdisjoint(wanted):
                break
            wanted = yield from elsewhere(wanted, condemned, held[-1])
        else:
            return
        yield from place(wanted, True)
        keys += wanted
    yield from push(me, tuple(keys), rules, early=frozenset(held))
    for lease in held:
        yield drop_lease(lease)

"""The servers that the faults are tried on."""

from servers import asked_once, moto_server  # noqa: F401

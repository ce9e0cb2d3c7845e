"""The servers that the faults are tried on."""

from servers import moto_server  # noqa: F401

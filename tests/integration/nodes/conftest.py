"""The S3 servers that these tests use."""

from servers import moto_server  # noqa: F401

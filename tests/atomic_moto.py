"""moto's server, whose conditional writes are made whole.

It looks at the condition and stores in two steps. Between them another of its threads may store, which on a busy machine
happens: then two writers win, and tests of what a server with conditions allows would fail now and then.
"""

import threading
from typing import Any

from moto.s3.responses import S3Response
from moto.server import main

_ONE_AT_A_TIME = threading.Lock()
_put_object = S3Response.put_object


def put_object(self: S3Response) -> Any:
    with _ONE_AT_A_TIME:
        return _put_object(self)


if __name__ == "__main__":
    S3Response.put_object = put_object  # type: ignore[method-assign]
    main()

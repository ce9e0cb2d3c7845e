"""The store: what it survives, and how fast it is.

python -m tests.bench.store [--quick] [--json]
"""

from __future__ import annotations

import sys

from tests.bench import store_faults, store_speed
from tests.bench.common import options, show_all


def main() -> int:
    given = options(__doc__ or "").parse_args()
    parts = (store_speed.measure, store_faults.measure)
    return show_all((measure(given.quick) for measure in parts), given)


if __name__ == "__main__":
    sys.exit(main())

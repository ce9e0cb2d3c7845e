"""All benchmarks and one table of targets.

python -m tests.bench [--quick] [--json] [--store URL] [--only cli,loop]
"""

from __future__ import annotations

import sys

from tests.bench import chaos, cli, first_step, loop, ray_overhead, store_sharing, styles, transfer
from tests.bench.common import Result, options, show_all

NAMES = ("cli", "loop", "ray_overhead", "first_step", "chaos", "store_sharing", "styles", "transfer")


def run(name: str, quick: bool, store: str | None = None) -> Result:
    print(f"{name} ...", file=sys.stderr, flush=True)
    if name == "transfer":
        return transfer.measure(quick, store)
    modules = {"cli": cli, "loop": loop, "ray_overhead": ray_overhead, "first_step": first_step, "chaos": chaos}
    return {**modules, "store_sharing": store_sharing, "styles": styles}[name].measure(quick)  # type: ignore[attr-defined]


def main() -> int:
    parser = options(__doc__ or "")
    parser.add_argument(
        "--store", help="store of the transfer benchmark; default: a folder of the cache, kept between runs"
    )
    parser.add_argument("--only", default=",".join(NAMES), help=f"some of {','.join(NAMES)}")
    given = parser.parse_args()
    chosen = given.only.split(",")
    if unknown := set(chosen) - set(NAMES):
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    return show_all((run(name, given.quick, given.store) for name in chosen), given)


if __name__ == "__main__":
    sys.exit(main())

"""All benchmarks and one table of targets.

python -m tests.bench [--quick] [--json] [--store URL] [--only cli,loop]
"""

from __future__ import annotations

import json
import sys

from tests.bench import cli, loop, ray_overhead, transfer
from tests.bench.common import Result, options, verdicts

NAMES = ("cli", "loop", "ray_overhead", "transfer")


def run(name: str, quick: bool, store: str | None = None) -> Result:
    if name == "transfer":
        return transfer.measure(quick, store)
    return {"cli": cli, "loop": loop, "ray_overhead": ray_overhead}[name].measure(quick)


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
    results = []
    for name in chosen:
        print(f"{name} ...", file=sys.stderr, flush=True)
        results.append(run(name, given.quick, given.store))
        if not given.json:
            print(results[-1].to_text(), end="\n\n", flush=True)
    if given.json:
        print(json.dumps([result.to_json() for result in results], indent=1))
    else:
        print(verdicts([target for result in results for target in result.targets]))
    return 0 if given.quick or all(result.passed for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())

"""Writes the golden losses anew: `python tests/golden/regenerate.py`.

To be run when a change is meant to change the numbers of training; the commit says why they changed.
"""

from __future__ import annotations

import json

import torch
from runs import CASES, FILE, run


def main() -> None:
    torch.set_num_threads(1)
    golden = {
        case: [{name: float(f"{value:.7g}") for name, value in sorted(row.items())} for row in run(case)]
        for case in CASES
    }
    lines = [
        f" {json.dumps(case)}: [\n  " + ",\n  ".join(map(json.dumps, rows)) + "\n ]" for case, rows in golden.items()
    ]
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    print(f"wrote {FILE}")


if __name__ == "__main__":
    main()

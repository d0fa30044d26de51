"""What sharing encoder passes saves: one run of k methods against the sum of k separate runs, on the demo set.

    python benchmarks/sharing.py --methods winclip,clip_ad,clip_surgery,fiseclip,musc --repeat 3

Both are measured in one process, in turn, after a warm-up; the ratio is what counts, not the seconds.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tabulate import tabulate

from zsadbench.running import runner
from zsadbench.running.plan import make_plan
from zsadbench.running.progress import Recorded, Silent
from zsadbench.running.request import Request


class Strict(Silent):
    """A Progress that shows nothing and stops at a cell that failed."""

    def finish_cell(self, recorded: Recorded) -> None:
        """Stop: the time of a failed cell would mean nothing."""
        if recorded.record.status != "done":
            raise SystemExit(recorded.record.error)


def seconds(methods: Sequence[str], encoder: str) -> float:
    """Return how long one run of these methods takes, results included, from an empty folder."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        request = Request(methods=methods, datasets=["demo"], out=Path(folder), encoder=encoder)
        runner.run(make_plan(request), request, Strict())
        return time.perf_counter() - start


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", default="winclip,clip_ad,clip_surgery,fiseclip,musc")
    parser.add_argument("--encoder", default="demo")
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    methods = options.methods.split(",")
    seconds(methods, options.encoder)
    together, apart = [], {name: [] for name in methods}
    for _ in range(options.repeat):
        together.append(seconds(methods, options.encoder))
        for name in methods:
            apart[name].append(seconds([name], options.encoder))
    alone = {name: statistics.median(times) for name, times in apart.items()}
    shared = statistics.median(together)
    rows = [[name, value, value / shared] for name, value in alone.items()]
    rows += [
        ["sum of separate runs", sum(alone.values()), sum(alone.values()) / shared],
        ["one shared run", shared, 1.0],
    ]
    print(tabulate(rows, headers=["run", "seconds", "of the shared run"], tablefmt="github", floatfmt=".2f"))
    print(f"\nshared / costliest alone: {shared / max(alone.values()):.2f}")
    print(f"shared / sum of separate: {shared / sum(alone.values()):.2f}")


if __name__ == "__main__":
    main()

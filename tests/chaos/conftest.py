"""The chaos tests run with `make chaos` alone, and end with a table of what they tried."""

from pathlib import Path

import pytest
from faults import TALLIES

HERE = Path(__file__).parent


def pytest_collection_modifyitems(config, items):
    """Mark these tests as slow, and leave them out unless their folder was asked for."""
    chaos = [item for item in items if item.path.parent == HERE]
    for item in chaos:
        item.add_marker(pytest.mark.slow)
    if not any(
        (config.invocation_params.dir / argument.partition("::")[0]).is_relative_to(HERE) for argument in config.args
    ):
        config.hook.pytest_deselected(items=chaos)
        items[:] = [item for item in items if item not in chaos]


def pytest_terminal_summary(terminalreporter):
    """Print the table."""
    if TALLIES:
        terminalreporter.section("chaos")
        terminalreporter.write_line(f"{'':<52}{'attempts':>9}{'survived':>9}{'lost':>6}{'wrong':>6}")
        for name, tally in TALLIES.items():
            row = f"{name:<52}{tally.attempts:>9}{tally.survived:>9}{tally.lost:>6}{tally.wrong:>6}"
            terminalreporter.write_line(row)

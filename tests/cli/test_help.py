"""`--help` at 80 columns: nothing is cut, options stand in panels, commands in the order of use."""

import re

import pytest
from commands import zsadbench

PANEL = re.compile(r"\u256d\u2500 (.+?) \u2500+\u256e")  # the upper edge of a rounded box with its title
GROUPS = {
    "run": ["Methods", "Data", "Encoder", "Protocol", "Execution", "Output"],
    "study": ["Methods", "Data", "Encoder", "Execution", "Output"],
    "train": ["Methods", "Data", "Output", "Encoder", "Execution"],
    "profile": ["Methods", "Encoder", "Measurement", "Execution", "Output"],
}


@pytest.mark.parametrize(
    "command", [*GROUPS, "table", "report", "figure maps", "show", "list", "data fetch", "check", "cache info"]
)
def test_help_fits_80_columns_and_cuts_nothing(command):
    done = zsadbench(*command.split(), "--help", COLUMNS="80")
    assert done.returncode == 0
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "\N{HORIZONTAL ELLIPSIS}" not in done.stdout
    if command in GROUPS:
        panels = PANEL.findall(done.stdout)
        assert [panel for panel in panels if panel not in ("Arguments", "Options")] == GROUPS[command]


def test_commands_stand_in_the_order_of_use():
    told = zsadbench("--help", COLUMNS="80").stdout
    places = [told.index(f" {name}   ") for name in ("run", "table", "report", "figure", "show", "list", "data")]
    assert places == sorted(places)


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("--methods win", ["winclip"]),
        ("--methods musc,win", ["musc,winclip"]),
        ("--datasets vis", ["visa"]),
        ("--methods nothing", []),
    ],
)
def test_shells_complete_names_of_methods_and_datasets(typed, expected):
    words = f"zsadbench run {typed}"
    done = zsadbench(_ZSADBENCH_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD="3")
    assert done.stdout.split() == expected

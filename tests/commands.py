"""The command line as the tests call it."""

import io
import sys
from contextlib import redirect_stderr, redirect_stdout
from typing import NamedTuple

import pytest

from zsadbench.cli.main import main


class Done(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


def zsadbench(*arguments, **environment):
    """Run the command line inside this process, which saves the seconds that a new one needs to import torch."""
    stdout, stderr = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(stdout), redirect_stderr(stderr):
        patch.setattr(sys, "argv", ["zsadbench", *map(str, arguments)])
        for name, value in environment.items():
            patch.setenv(name, value)
        code = 0
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
    return Done(code, stdout.getvalue(), stderr.getvalue())

"""How a command ends: Ctrl-C at any moment, plugins that try to end the process, threads that they leave behind."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from zsadbench.support import process, traces

ROOT = Path(process.__file__).parents[2]


def command(*arguments: str, path: Path | None = None, code: str = "") -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own that answers Ctrl-C; `path` is searched before everything else."""
    start = [sys.executable, "-c", code] if code else [sys.executable, "-m", "zsadbench"]
    return subprocess.run(
        [*start, *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, filter(None, (path, ROOT))))},
        capture_output=True, text=True, check=False, timeout=120,
        # A shell that starts the tests in the background makes them ignore Ctrl-C, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip


@pytest.mark.parametrize("swallow", ["", "try: time.sleep(9)\nexcept BaseException: pass"])
def test_ctrl_c_while_modules_are_imported_is_one_sentence(tmp_path, swallow):
    (tmp_path / "typer.py").write_text(f"import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\n{swallow}")
    done = command("list", path=tmp_path)
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr == f"{process.sentence(signal.SIGINT)}\n"


def test_a_process_that_was_told_to_ignore_ctrl_c_goes_on():
    code = (
        "import os, signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "from zsadbench.support import process\nprocess.end_on_signals()\nos.kill(os.getpid(), signal.SIGINT)"
    )
    assert command(code=code).returncode == 0


def test_a_thread_that_is_left_behind_does_not_keep_a_finished_process():
    code = (
        "import threading, time, sys\nfrom zsadbench.support import process\nprint('a result')\n"
        "threading.Thread(target=time.sleep, args=(600,), name='mine').start()\n"
        "process.GRACE = 0.2\nprocess.end_soon(1)\nsys.exit(1)"
    )
    done = command(code=code)
    assert (done.returncode, done.stdout) == (1, "a result\n")
    assert "(mine)" in done.stderr and done.stderr.count("\n") == 1


def raised(source: str, file: str) -> BaseException:
    """Return what a source raises that claims to lie in a file."""
    try:
        exec(compile(textwrap.dedent(source), file, "exec"), {})
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


def test_an_error_is_placed_at_the_plugins_own_line_in_the_users_words(toys, tmp_path, monkeypatch):
    source = "import json\ndef predict():\n    return json.loads('{')\npredict()"
    error = raised(source, str(toys / "methods/m6.py"))
    assert traces.sentence(error).endswith(f"(at {toys.name}/methods/m6.py:3)")
    monkeypatch.chdir(toys.parent)
    assert f"(at {toys.name}/methods/m6.py:3)" in traces.sentence(error)
    monkeypatch.chdir(toys)
    assert traces.report(error).splitlines()[0].endswith("(at methods/m6.py:3)")
    assert str(tmp_path) not in traces.report(error) and sys.prefix not in traces.report(error)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("raise SystemExit", "SystemExit without a message"),
        ("raise ValueError('x' * 10_000_000)", "xx... (10,000,000 characters)"),
        (
            "class E(Exception):\n  def __str__(self): 1 / 0\nraise E",
            "E (its message cannot be read: ZeroDivisionError)",
        ),
        ("raise ValueError('one\\ntwo')", "ValueError: one two"),
        ("def f(): f()\nf()", "RecursionError: maximum recursion depth exceeded"),
    ],
)
def test_any_error_has_a_first_line_that_says_what_it_is_and_an_end(source, words):
    text = traces.report(raised(source, "/somewhere/else/file.py"))
    assert words in text.splitlines()[0]
    assert len(text) < 30_000 and len(text.splitlines()) <= traces.LINES + 2

"""The command `zsadbench`, which is the same as `python -m zsadbench`."""

from zsadbench.support import process


def main() -> None:
    """Run the command line; signals are answered from here on, because imports take the first seconds."""
    process.end_on_signals()
    process.keep_output_clean()
    code = 1  # of a bug
    try:
        from zsadbench.cli.main import main as command_line

        command_line()
    except SystemExit as ending:
        code = int(ending.code or 0)
        raise
    finally:
        process.end_soon(code)


if __name__ == "__main__":  # worker processes import this file again
    main()

"""`python -m zsadbench` is the same as the command `zsadbench`."""

from zsadbench.cli.main import main

if __name__ == "__main__":  # worker processes import this file again
    main()

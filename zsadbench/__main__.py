"""`python -m zsadbench` is the same as the command `zsadbench`."""

from zsadbench.cli import main

main()

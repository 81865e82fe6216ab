"""`python -m monge` is the command line."""

from monge.cli import main

main()

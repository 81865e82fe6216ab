"""`python -m monge` is the command line."""

import os
import sys

# Python puts the current folder first on the path, from where a run that is opened there could
# choose code; the console script does not have it either
if sys.path and sys.path[0] in ("", os.getcwd()):
    del sys.path[0]

from monge.cli import main

main()

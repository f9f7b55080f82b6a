"""`python -m lbnode.cli.lbctl` is lbctl."""

import sys

from lbnode.cli.lbctl.main import main

sys.exit(main())

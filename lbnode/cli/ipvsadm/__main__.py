"""`python -m lbnode.cli.ipvsadm` is lbadm."""

import sys

from lbnode.cli.ipvsadm.main import main

sys.exit(main())

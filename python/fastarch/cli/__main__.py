"""`python -m fastarch.cli`, for where no script was installed."""

import sys

from fastarch.cli import main

sys.exit(main())

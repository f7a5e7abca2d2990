"""`python -m fastarch`, for where no script was installed."""

import sys

from fastarch.cli import main

sys.exit(main())

"""`python -m tests.components.curation.slow_step`: the step `curate` with a slow filter in place of `image_validity`."""

import sys

from components import steps
from components.curation.filters import FILTERS
from tests.components.curation.slow import Slow

if __name__ == "__main__":
    FILTERS["image_validity"] = Slow
    sys.exit(steps.main("curate"))

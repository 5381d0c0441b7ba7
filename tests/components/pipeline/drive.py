"""`python -m tests.components.pipeline.drive PROJECT STEP`: a flow process that can be killed."""

import sys
from pathlib import Path

from tests.components.pipeline.toy import open_pipeline

if __name__ == "__main__":
    open_pipeline(Path(sys.argv[1])).ensure(sys.argv[2], {}, lambda _: None)

"""`python -m tests.components.pipeline.drive PROJECT STEP [PROFILE]`: a flow process that can be killed."""

import sys
from pathlib import Path

from components.runtime import load_runtime
from tests.components.pipeline.toy import open_pipeline

if __name__ == "__main__":
    open_pipeline(Path(sys.argv[1]), load_runtime(sys.argv[3]) if len(sys.argv) > 3 else None).ensure(sys.argv[2], {}, lambda _: None)

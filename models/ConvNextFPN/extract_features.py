"""Features of this folder's encoder for every video of a data set; `--help` lists the options."""

from pathlib import Path

from common.base.runtime import run_main
from common.extract_features import main

if __name__ == "__main__":
    run_main(lambda: main(model=Path(__file__).parent.name))

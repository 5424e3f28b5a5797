"""Extract one feature vector per video frame with a frozen encoder: videos in, feature files and sidecars out.

python -m common.extract_features --model Base --dataset SICS155
python -m common.extract_features --model V-JEPA2-ViT-L --mode tokens --shard 1/8
"""

from common.base import paths
from common.base.options import CommandParser, add_options, resolve
from common.base.runtime import run_main
from common.features.config import ExtractionConfig


def main(argv: list[str] | None = None, *, model: str | None = None) -> int:
    """Entry point; `model` names the folder whose script was started. Returns the exit code of `Summary`."""
    parser = CommandParser(None if model else "common.extract_features", __doc__)
    if model is None:
        parser.groups["model"].add_argument(
            "--model", help="folder under models/ (default: the one this is started in)"
        )
    add_options(parser, ExtractionConfig)
    parser.groups["output"].add_argument("--force", action="store_true", help="extract again what is finished")
    parser.add_device()
    given = vars(parser.parse_args(argv))
    config = resolve(ExtractionConfig, given)

    # after --help, which needs no torch
    from common.features.extract import extract
    from common.features.shards import with_task_shard

    config = with_task_shard(config)
    folder = paths.model(model or given["model"])
    return extract(folder, config, device=given["device"], force=given["force"]).exit_code


if __name__ == "__main__":
    run_main(main)

"""Train the MS-TCN++ head on one encoder's features of one split, or predict with it.

python -m common.train --action train --dataset SICS155 --split 1 --device cuda:0
python -m common.train --action predict --dataset SICS155 --split 1
"""

from __future__ import annotations

from pathlib import Path

from common.base.options import CommandParser, resolve
from common.base.runtime import run_main
from common.head.config import TrainConfig, add_train_options
from common.head.experiment import load_experiment
from common.head.new_videos import predict_videos
from common.head.prediction import predict
from common.head.training import train


def main(argv: list[str] | None = None) -> int:
    """Entry point of `python -m common.train`."""
    parser = CommandParser("common.train", __doc__)
    parser.add_argument("--action", choices=("train", "predict"), default="train", help="(default: %(default)s)")
    add_train_options(parser)
    parser.add_argument("--resume", action="store_true", help="go on from the last finished epoch")
    parser.add_argument("--checkpoint", metavar="FILE", help="predict with this file instead of the run's own")
    parser.add_argument("--videos", metavar="DIR", help="predict these unlabelled videos instead of the split's")
    given = vars(parser.parse_args(argv))
    experiment = load_experiment(resolve(TrainConfig, given, given["config"]))
    checkpoint = Path(given["checkpoint"]) if given["checkpoint"] else None
    if given["action"] == "train":
        train(experiment, device=given["device"], resume=given["resume"], wandb=given["wandb"])
        print(experiment.checkpoint)
    elif given["videos"]:
        print(predict_videos(experiment, Path(given["videos"]), device=given["device"], checkpoint=checkpoint))
    else:
        predict(experiment, device=given["device"], checkpoint=checkpoint)
        print(experiment.results)
    return 0


if __name__ == "__main__":
    run_main(main)

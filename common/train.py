"""Train a head on one encoder's features of one split, or predict with it.

python -m common.train --action train --dataset SICS155 --split 1
python -m common.train --action predict --dataset SICS155 --split 1
python -m common.train --action predict --dataset Cataracts-1K --test_dataset CATARACTS --classes map.yaml
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

from common.base.options import CommandParser, resolve
from common.base.runtime import UserError, run_main
from common.head.config import TrainConfig, add_train_options


def main(argv: list[str] | None = None) -> int:
    """Entry point of `python -m common.train`."""
    parser = CommandParser("common.train", __doc__)
    parser.add_argument("--action", choices=("train", "predict"), default="train", help="(default: %(default)s)")
    add_train_options(parser)
    _add_prediction_options(parser)
    given = vars(parser.parse_args(argv))
    _refuse_ignored(given)

    # torch loads only now (--help is answered at once), and decoders and encoders only for videos without features
    from common.head.experiment import load_experiment

    config = resolve(TrainConfig, given, given["config"])
    if config.choose != "none" and given["action"] == "train":
        raise UserError(f"choose: {config.choose} is for common.run_k_folds, which chooses for each fold; leave it out")
    is_scored = given["action"] == "predict" and not given["videos"]
    experiment = load_experiment(config, verify=not given["no_verify"], part=given["part"], is_scored=is_scored)
    device, checkpoint = given["device"], given["checkpoint"]
    if given["action"] == "train":
        from common.head.training import train

        train(experiment, device=device, resume=given["resume"], wandb=given["wandb"])
        print(experiment.checkpoint)
    elif given["videos"]:
        from common.head.new_videos import predict_videos

        damaged = given["accept_damaged"]
        print(predict_videos(experiment, given["videos"], device=device, checkpoint=checkpoint, accept_damaged=damaged))
    elif given["test_dataset"]:
        from common.base.wording import format_table
        from common.head.transfer import predict_elsewhere

        test_dataset, classes, splits = given["test_dataset"], given["classes"], given["test_splits"]
        record, table = predict_elsewhere(
            experiment, test_dataset, classes, test_splits=splits, device=device, checkpoint=checkpoint
        )
        print(format_table(table))
        print(record)
    else:
        from common.head.prediction import predict

        predict(experiment, device=device, checkpoint=checkpoint)
        if given["decode"] != "argmax":
            decoded = replace(experiment, decode=given["decode"])
            predict(decoded, device=device, checkpoint=checkpoint)
            print(decoded.results)
        print(experiment.results)
    return 0


def _add_prediction_options(parser: CommandParser) -> None:
    """Whether to go on with a training, and what to predict."""
    data, training = parser.groups["data"], parser.groups["training"]
    training.add_argument("--resume", action="store_true", help="resume after the last finished epoch")
    data.add_argument("--checkpoint", type=Path, metavar="FILE", help="predict with this file instead of the run's own")
    data.add_argument(
        "--videos", type=Path, metavar="DIR", help="predict these unlabelled videos instead of the split's"
    )
    data.add_argument("--accept_damaged", action="store_true", help="with --videos: take damaged ones as they are")
    data.add_argument(
        "--part",
        choices=("test", "val"),
        default="test",
        help="predict and score this list of the split; val is for --splits whose list has one (default: %(default)s)",
    )
    data.add_argument(
        "--test_dataset",
        metavar="NAME",
        help="predict and score another data set than the one that the head was trained on, over the phases that both have",
    )
    data.add_argument(
        "--classes",
        type=Path,
        metavar="MAP.yaml",
        help="with --test_dataset: `phase of the head: phase of the test set` (default: phases of the same name)",
    )
    data.add_argument(
        "--test_splits",
        metavar="NAME",
        help="with --test_dataset: only the test videos of this list of it (default: all labelled videos)",
    )


def _refuse_ignored(given: dict[str, Any]) -> None:
    """Raise `UserError` for what would have no effect beside, or without, other flags."""
    decoded = given["decode"] != "argmax"
    of_prediction = {name: given[name] for name in ("test_dataset", "videos", "checkpoint", "accept_damaged")}
    for name, value in (of_prediction | {"decode": decoded}).items():
        if given["action"] == "train" and value:
            raise UserError(f"--{name} would have no effect with --action train; add --action predict")
    if given["videos"] and given["test_dataset"]:
        raise UserError("--videos and --test_dataset are two different things to predict; give one of them")
    for name in ("videos", "test_dataset"):
        if given[name] and decoded:
            raise UserError(f"--decode {given['decode']} is for the split's videos; leave it out, or --{name}")
    for name in ("classes", "test_splits"):
        if given[name] and not given["test_dataset"]:
            raise UserError(f"--{name} would have no effect without --test_dataset")


if __name__ == "__main__":
    run_main(main)

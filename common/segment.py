"""Train a decoder on the maps of a frozen encoder, predict the class of every pixel, score the masks.

python -m common.segment train    --dataset CaDIS-2 --model SurgeNet-CAFormer-S18 --splits official
python -m common.segment predict  --dataset CaDIS-2 --model SurgeNet-CAFormer-S18 --splits official
python -m common.segment evaluate --dataset CaDIS-2 --model SurgeNet-CAFormer-S18 --splits official
python -m common.segment predict  --dataset CaDIS-2 --model MetaFormerFPN --splits official --checkpoint FILE
"""

from pathlib import Path
from typing import Any

from common.base.options import CommandParser, resolve
from common.base.runtime import UserError, run_main
from common.tasks.segmentation.config import SegmentConfig, add_segment_options

ALL = "all"
# flags of one action alone
OF_ACTION = {
    "resume": "train",
    "checkpoint": "predict",
    "predictions": "evaluate",
    "ignore_background": "evaluate",
    "overlays": "evaluate",
}


def main(argv: list[str] | None = None) -> int:
    """Entry point of `python -m common.segment`."""
    parser = CommandParser("common.segment", __doc__)
    parser.add_argument("action", choices=("train", "predict", "evaluate"), help="what to do with a split")
    add_segment_options(parser)
    _add_action_options(parser)
    given = vars(parser.parse_args(argv))
    for name, action in OF_ACTION.items():
        if given[name] not in (None, False) and given["action"] != action:
            raise UserError(f"--{name} would have no effect with {given['action']}; it is for {action}")
    every = given.get("split") == ALL
    if every:
        del given["split"]
    config = resolve(SegmentConfig, given, given["config"])
    if given["part"] == "val" and given["action"] == "train":
        raise UserError("--part val would have no effect with train: a validation list is never learned from")

    # numpy and Pillow load only now, and torch where something is computed: --help is answered at once
    from common.tasks.segmentation.experiment import load_segmentation

    segmentation = load_segmentation(config, part=given["part"])
    if given["action"] == "evaluate":
        _evaluate(segmentation, given)
        return 0
    numbers = range(1, len(segmentation.splits) + 1) if every else [int(config.split)]
    for split in map(segmentation.of_split, numbers):
        if given["action"] == "train":
            from common.tasks.segmentation.training import train_segmentation

            train_segmentation(split, device=given["device"], resume=given["resume"])
            print(split.checkpoint)
        else:
            from common.tasks.segmentation.prediction import predict_masks

            print(predict_masks(split, device=given["device"], checkpoint=given["checkpoint"]))
    return 0


def _evaluate(segmentation: Any, given: dict[str, Any]) -> None:
    """Print the table of the predicted splits; of a run of one's own also write its record and overlays."""
    from common.tasks.segmentation.evaluation import evaluate_masks, evaluation_text, write_mask_summary

    folder = given["predictions"]
    found = evaluate_masks(segmentation, ignore_background=given["ignore_background"], predictions=folder)
    print(evaluation_text(found))
    if folder is None and given["part"] == "test":
        print(write_mask_summary(found))
    if given["overlays"] is not None:
        from common.reports.pictures.mask_sheet import save_mask_sheet

        print(save_mask_sheet(found, given["overlays"]))


def _add_action_options(parser: CommandParser) -> None:
    """Whether to go on with a training, what to predict with, and how to score."""
    data, training, output = (parser.groups[name] for name in ("data", "training", "output"))
    training.add_argument("--resume", action="store_true", help="train: resume after the last finished epoch")
    data.add_argument(
        "--checkpoint",
        type=Path,
        metavar="FILE",
        help="predict: with this file instead of the run's own, also the state dict of a whole MetaFormerFPN, ConvNextFPN "
        "or PVTV2FPN of SurgeNet's code",
    )
    data.add_argument(
        "--part",
        choices=("test", "val"),
        default="test",
        help="predict, evaluate: this list of the split (default: %(default)s)",
    )
    data.add_argument(
        "--predictions",
        type=Path,
        metavar="DIR",
        help="evaluate: masks made elsewhere, DIR/<group>/<image>.png, of the chosen split",
    )
    output.add_argument(
        "--ignore_background",
        action="store_true",
        help="evaluate: leave the class that dataset.yaml calls background out of the means",
    )
    output.add_argument(
        "--overlays",
        type=int,
        metavar="N",
        help="evaluate: a picture of N test images from the worst to the best, truth and prediction drawn in",
    )


if __name__ == "__main__":
    run_main(main)

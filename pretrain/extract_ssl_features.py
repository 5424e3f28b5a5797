"""Stage 3 of pretraining: features of a data set by a pretrained network, for the same heads as any encoder's.

    python pretrain/extract_ssl_features.py --model vjepa2-l
    python pretrain/extract_ssl_features.py --model vjepa2-vitl-fpc64-256 --checkpoint pretrain/checkpoints/ssl/vjepa2-vitl-fpc64-256

The first takes the adapter of finetune_lora.py and its base, and is the same as extract_features.py in the CataractFT
folder of the encoder. The second is the variant without LoRA, kept apart as features/<Encoder>@ssl. An adapter folder
as --checkpoint is the same as --lora_path.
"""

from dataclasses import replace
from typing import Any

from common.base.options import CommandParser, add_options, resolve
from common.base.runtime import run_main
from common.encoders.weights.adapters import ADAPTER_CONFIG
from common.features.config import ExtractionConfig
from common.features.shards import with_task_shard
from pretrain.handover import encoder_folder, find_stage_output
from pretrain.ssl_config import find_model

WITHOUT_LORA = "ssl"  # the variant of features of Stage 1 alone
WEIGHT_OPTIONS = ("weights", "lora_path", "ssl_checkpoint")


def main(argv: list[str] | None = None) -> int:
    """Extract; returns the exit code of `common.extract_features`."""
    parser = CommandParser(None, __doc__)
    model = parser.groups["model"]
    model.add_argument("--model", help="network, by its long or short name in pretrain/")
    model.add_argument(
        "--checkpoint",
        "--ssl_checkpoint",
        metavar="PATH",
        help="Stage 1 output, a final.pt or an export: without --lora_path the features are its own, variant 'ssl'; "
        "or an adapter folder (default: the export that the adapter was trained on)",
    )
    model.add_argument(
        "--lora_path",
        metavar="FOLDER",
        help="adapter folder of finetune_lora.py (default, without --checkpoint: the model's own best_lora)",
    )
    add_options(parser, ExtractionConfig, skip=WEIGHT_OPTIONS)
    parser.groups["output"].add_argument("--force", action="store_true", help="extract again what is finished")
    parser.add_device()
    given = vars(parser.parse_args(argv))
    config = extraction_config(given)

    # after --help, which needs no torch
    from common.features.extract import extract

    folder = encoder_folder(find_model(given["model"]))
    return extract(folder, config, device=given["device"], force=given["force"]).exit_code


def extraction_config(given: dict[str, Any]) -> ExtractionConfig:
    """The configuration of an extraction by these flags.

    Raises `UserError` for weights that are not there.
    """
    flags = {key: value for key, value in given.items() if key not in WEIGHT_OPTIONS}
    config = with_task_shard(resolve(ExtractionConfig, flags))
    adapter = find_stage_output(given["lora_path"], "--lora_path") if given["lora_path"] else None
    base = find_stage_output(given["checkpoint"], "--checkpoint") if given["checkpoint"] else None
    if base and not adapter and (base / ADAPTER_CONFIG).is_file():
        adapter, base = base, None
    variant = config.variant or (WITHOUT_LORA if base and not adapter else None)
    return replace(config, variant=variant, lora_path=adapter and str(adapter), ssl_checkpoint=base and str(base))


if __name__ == "__main__":
    run_main(main)

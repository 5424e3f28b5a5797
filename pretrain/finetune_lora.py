"""Stage 2 of pretraining: adapt a network to annotated cataract videos with LoRA.

    python pretrain/finetune_lora.py --model vjepa2-l --ssl_checkpoint pretrain/checkpoints/ssl/vjepa2-vitl-fpc64-256/final.pt
    python pretrain/finetune_lora.py --model dinov3-b --datasets Cataract-101 --base published
    torchrun --nproc_per_node 4 pretrain/finetune_lora.py --model vjepa2-g        # 4 GPUs: four times the clips a step

Writes pretrain/checkpoints/<short name>/best_lora, which the CataractFT folders under models/ read, and its classifier as a
linear head, linear_probe.pt, for python -m common.predict_video. A training that was stopped resumes where it was when the
same command is run again.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from common.base.files import restore_folder
from common.base.options import CommandParser, resolve
from common.base.runtime import UserError, choose_precision, keep_freed_memory, run_main
from common.encoders.config import EncoderConfig, read_encoder_config
from pretrain.annotations.phase_classes import read_phase_classes
from pretrain.handover import encoder_folder, find_base
from pretrain.lora.options import FinetuneOptions, add_finetune_options
from pretrain.ssl_config import find_model

if TYPE_CHECKING:
    from pretrain.engine.distributed import Processes
    from pretrain.lora.training import Finetuning

CHECKED_CLIPS = 2


def main(argv: list[str] | None = None) -> int:
    """Train or resume; returns 0 when finished or put back into SLURM's queue, 129, 130 or 143 when saved after a signal."""
    parser = CommandParser(None, __doc__)
    add_finetune_options(parser)
    parser.add_device()
    given = vars(parser.parse_args(argv))
    options = resolve(FinetuneOptions, given, given["config"]).completed()
    if options.mlp and options.target_modules:
        raise UserError("--mlp together with --target_modules: name the MLP's layers too, or leave one of them out")
    return finetune(options, device=given["device"])


def finetune(options: FinetuneOptions, *, device: str = "auto") -> int:
    """Train as the options (completed) say; returns the exit code.

    Raises `UserError` for what is missing, and for an output folder of another training or in use by one.
    """
    from pretrain.engine.distributed import start_processes
    from pretrain.engine.loop import owned

    with start_processes(device) as processes, owned(options.output_folder, processes):
        return _finetune(options, processes)


def _finetune(options: FinetuneOptions, processes: Processes) -> int:
    keep_freed_memory()
    config = training_config(options)
    training = prepare(options, config, processes)
    code = training.run()
    if training.is_finished and processes.is_first:
        if not options.best_lora.is_dir():
            raise UserError(f"{training.last} is of a finished training, but {options.best_lora} is gone; delete both")
        training.writer.check(config, training.validation_clips(CHECKED_CLIPS))
        print(options.best_lora)
    return code


def training_config(options: FinetuneOptions) -> EncoderConfig:
    """The encoder that Stage 3 uses, on the chosen base and with the clips of training."""
    model = find_model(options.model)
    config = read_encoder_config(encoder_folder(model).config)
    base = find_base(model, options.base, options.ssl_checkpoint)
    return replace(config, ssl_checkpoint=str(base), clip_len=options.clip_len if config.clip_len else None)


def prepare(options: FinetuneOptions, config: EncoderConfig, processes: Processes) -> Finetuning:
    """Data, network with adapters and classifier, ready to train or to resume."""
    # not above: --help, and every process that reads videos, imports this file
    from transformers.modeling_layers import GradientCheckpointingLayer

    from common.encoders.base import build_encoder
    from pretrain.engine.sharding import recompute_blocks
    from pretrain.lora.adapter_writer import AdapterWriter
    from pretrain.lora.adapters import add_adapters
    from pretrain.lora.data import read_clips, seen_corpora
    from pretrain.lora.phase_classifier import PhaseClassifier
    from pretrain.lora.training import Finetuning

    classes = read_phase_classes(Path(options.classes)) if options.classes else read_phase_classes()
    clips = read_clips(options, classes, config.preprocessing)
    # before anything is read of it: a kill may have come while the adapter's folder was replaced
    if processes.is_first:
        restore_folder(options.best_lora)
    device = processes.device
    encoder = build_encoder(config)
    adapted = add_adapters(
        encoder.network,
        rank=options.rank,
        alpha=options.alpha,
        dropout=options.dropout,
        mlp=options.mlp,
        chosen=options.target_modules,
        seed=options.seed,
    )
    if options.gradient_checkpointing == "all":
        recompute_blocks(encoder.network, (GradientCheckpointingLayer,))
    precision = choose_precision(options.precision, device)
    encoder.prepare(device, precision)
    classifier = PhaseClassifier(encoder, len(classes.names), seed=options.seed)
    writer = AdapterWriter(adapted, classifier, options, encoder.weights, classes.names, seen_corpora(clips))
    in_bf16 = precision == "bf16"
    return Finetuning(classifier, clips, options, writer, device=device, in_bf16=in_bf16, processes=processes)


if __name__ == "__main__":
    run_main(main)

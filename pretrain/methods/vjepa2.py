"""V-JEPA 2's masked prediction in the space of features (Assran et al., 2025), for continuing published weights."""

import logging
import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from transformers import VJEPA2Model
from transformers.models.vjepa2.modeling_vjepa2 import VJEPA2Encoder, VJEPA2Layer, VJEPA2Predictor

from common.base.runtime import UserError
from common.video.preprocess import normalise
from pretrain.engine.method import Batch, Method, Schedules
from pretrain.engine.reporting import flops_of_blocks
from pretrain.engine.startup import copy_of
from pretrain.methods.options import VJEPA2Options
from pretrain.methods.several_sizes import take_several
from pretrain.objectives.latent_losses import gather_tokens, latent_loss, latent_targets
from pretrain.objectives.masks_video import Grid, Multiblock, TokenMasks, Tube, masking
from pretrain.objectives.parameter_groups import ParameterGroup, backbone_groups, head_groups
from pretrain.objectives.schedules import (
    Constant,
    Linear,
    Schedule,
    Warmup,
    truncated_cooldown,
    truncated_cosine,
    truncated_linear,
)
from pretrain.ssl_config import SslModel
from pretrain.video_data.augment import VideoCrop

log = logging.getLogger(__name__)

PATCH_SIZE = 16
PLANNED_FOR_LONGER = {"cooldown": truncated_cooldown, "cosine": truncated_cosine}  # than the training: they stop above
STEPS_LOOKED_AT = 8  # of which the mean number of kept tokens is taken


class VJEPA2(Method):
    """The encoder sees part of a clip; the predictor says what its moving average finds in the rest of the whole clip.

    Batches hold `clip` `(B, T, 3, S, S)` uint8 and `number` `(B,)`. Masks are drawn for several families, by sample
    number, and the loss is their mean.
    """

    block_classes = (VJEPA2Layer,)

    def __init__(self, backbone: VJEPA2Model, options: VJEPA2Options, model: SslModel):
        """`backbone` is taken over, predictor included; `options` are completed.

        Raises `UserError` for a mask token that the predictor has not.
        """
        super().__init__()
        self.student = nn.ModuleDict({"backbone": backbone.encoder, "predictor": backbone.predictor})
        self.teacher = nn.ModuleDict({"backbone": copy_of(backbone.encoder)}).requires_grad_(False)
        self.config, self.options, self.clip_len = backbone.config, options, options.clip_len_of(model)
        self.preprocessing = model.encoder_config().preprocessing
        self.families = masking(
            options.mask_mode,
            mask_ratio=options.mask_ratio or None,
            targets="complement" if options.full_complement else "blocks",
        )
        self.mask_token = choose_mask_token(backbone.predictor, options.mask_token)
        take_several(self.student, self.block_classes)

    def forward(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """The error of the features predicted at hidden places, averaged over the families of masks."""
        student, predictor = self.student["backbone"], self.student["predictor"]
        clips = normalise(batch["clip"], self.preprocessing)
        masks = self.masks(batch, step)
        targets = self._targets(clips, masks)
        tokens = embed(student, clips)  # once for all families, which differ in what they show of them
        contexts = encode_several(
            student, [gather_tokens(tokens, mask.context) for mask in masks.values()], masks.values()
        )
        predictions = predict_states(predictor, contexts, list(masks.values()), mask_token=self.mask_token)
        numbers = {"loss": latent_loss(predictions, targets, exponent=self.options.loss_exponent)}
        for name, mask in masks.items():
            for part, places in (("seen", mask.context), ("predicted", mask.target)):
                share = places.shape[1] / tokens.shape[1]
                numbers[f"{part}/{name}"] = tokens.new_tensor(share, dtype=torch.float32)
        return numbers

    def masks(self, batch: Batch, step: int) -> dict[str, TokenMasks]:
        """The masks of a batch's samples by family, on the batch's device."""
        clips, samples = batch["clip"], batch["number"].tolist()
        return {
            family.name: self._draw(family, clips.shape[1], step, samples).to(clips.device) for family in self.families
        }

    @torch.no_grad()
    def _targets(self, clips: Tensor, masks: dict[str, TokenMasks]) -> list[Tensor]:
        teacher = self.teacher["backbone"]
        states = encode(teacher, embed(teacher, clips))  # of the whole clip: targets know what the student does not see
        return [latent_targets(states, mask.target) for mask in masks.values()]

    def parameter_groups(self) -> list[ParameterGroup]:
        """All at one rate: V-JEPA 2 has no layer decay."""
        return [*backbone_groups(self.student["backbone"]), *head_groups(self.student["predictor"], "predictor")]

    def schedules(self, total_steps: int) -> Schedules:
        """Rate and momentum as the options say, a constant weight decay (`vjepa2:app/vjepa/train.py`)."""
        options = self.options
        momentum: Schedule = Constant(options.momentum)
        if options.final_momentum is not None:
            momentum = truncated_linear(options.momentum, options.final_momentum, total_steps=total_steps)
        rate, decay = self._learning_rate(total_steps), Constant(options.weight_decay)
        return Schedules(rate, decay, momentum, options.clip_norm or None)

    def _learning_rate(self, total_steps: int) -> Schedule:
        options = self.options
        start, peak, end = options.start_learning_rate, options.learning_rate, options.final_learning_rate
        warmup_steps = round(options.warmup * total_steps)
        if options.lr_schedule in PLANNED_FOR_LONGER:
            decay = PLANNED_FOR_LONGER[options.lr_schedule]
            return decay(start, peak, end, warmup_steps=warmup_steps, total_steps=total_steps)
        then = Linear(peak, end, total_steps - warmup_steps) if options.lr_schedule == "linear" else Constant(peak)
        return Warmup(start, warmup_steps, then)

    def features(self, batch: Batch) -> Tensor:
        """The mean `(B, D)` of all tokens of each clip, as feature extraction takes it."""
        encoder = self._exported_encoder
        return encode(encoder, embed(encoder, normalise(batch["clip"], self.preprocessing))).mean(dim=1)

    def exported(self) -> nn.Module:
        """The whole model, so that a later training finds a predictor too."""
        with torch.device("meta"):
            network = VJEPA2Model(self.config)
        network.encoder, network.predictor = self._exported_encoder, self.student["predictor"]
        return network

    @property
    def _exported_encoder(self) -> nn.Module:
        return (self.teacher if self.options.export == "ema" else self.student)["backbone"]

    def flops_per_sample(self) -> float:
        """Of the blocks, on the mean number of tokens that masks leave to the encoder and ask of the predictor."""

        def flops(network: nn.Module, num_tokens: int, *, backward: bool = True) -> float:
            return flops_of_blocks(network.layer, num_tokens, width=network.layer[0].hidden_size, backward=backward)

        total = flops(self.teacher["backbone"], math.prod(self._grid(self.clip_len)), backward=False)
        for family in self.families:
            samples = range(self.options.batch_size)
            draws = [self._draw(family, self.clip_len, step, samples) for step in range(STEPS_LOOKED_AT)]
            kept, asked = (sum(places.shape[1] for places in part) for part in zip(*draws, strict=True))
            total += flops(self.student["backbone"], kept // STEPS_LOOKED_AT)
            total += flops(self.student["predictor"], (kept + asked) // STEPS_LOOKED_AT)
        return total

    def _draw(self, family: Multiblock | Tube, num_frames: int, step: int, samples: Sequence[int]) -> TokenMasks:
        return family.draw(self._grid(num_frames), seed=self.options.seed, step=step, samples=samples)

    def _grid(self, num_frames: int) -> Grid:
        side = self.config.crop_size // self.config.patch_size
        return num_frames // self.config.tubelet_size, side, side


def embed(encoder: VJEPA2Encoder, clips: Tensor) -> Tensor:
    """Normalised clips `(B, T, 3, S, S)` -> a token for each patch of two frames `(B, N, D)`, by time, row, column.

    Raises `ValueError` for another size than `crop_size`, from which positions are counted, and for an odd T: the
    network would take either without a word, with wrong rows and columns, or without the last frame.
    """
    config = encoder.config
    num_frames, size = clips.shape[1], tuple(clips.shape[-2:])
    if size != (config.crop_size, config.crop_size):
        raise ValueError(
            f"clips of {size} pixels for a network whose positions are those of {config.crop_size} squared"
        )
    if num_frames % config.tubelet_size:
        raise ValueError(f"clips of {num_frames} frames, which do not divide by {config.tubelet_size}")
    return encoder.embeddings(clips)


def encode(encoder: VJEPA2Encoder, tokens: Tensor, places: Tensor | None = None) -> Tensor:
    """States of the `embed`ded tokens `(B, N, D)` at the places `(B, K)` alone, `(B, K, D)`; by default of all.

    No other token takes part (V-JEPA, Bardes et al., 2024, section 3.1).
    """
    states = tokens if places is None else gather_tokens(tokens, places)
    for block in encoder.layer:
        states, _ = block(states, places)  # rotary positions are counted from the places, not from the order
    return encoder.layernorm(states)


def encode_several(encoder: VJEPA2Encoder, states: list[Tensor], masks: Iterable[TokenMasks]) -> list[Tensor]:
    """As `encode`, of the tokens of several contexts in one pass (`take_several`)."""
    places = [mask.context for mask in masks]
    for block in encoder.layer:
        states = [each for each, _ in block(states, places)]
    return [encoder.layernorm(each) for each in states]


def predict_states(
    predictor: VJEPA2Predictor, contexts: Sequence[Tensor], masks: Sequence[TokenMasks], *, mask_token: int = 0
) -> list[Tensor]:
    """Predicted states `(B, M, D)` of the target tokens of each of several masks, in their order, from those of its context `(B, K, D)`.

    A target enters as the learned mask token number `mask_token` at its true position.
    """
    known = [predictor.embeddings.predictor_embeddings(context) for context in contexts]
    asked = [predictor.embeddings.mask_tokens[mask_token].expand(*mask.target.shape, -1) for mask in masks]
    # attention does not look at the order: sorting by place, as the reference does, would change nothing
    states = [torch.cat(parts, dim=1) for parts in zip(known, asked, strict=True)]
    places = [torch.cat(mask, dim=1) for mask in masks]
    for block in predictor.layer:
        states = [each for each, _ in block(states, places)]
    return [
        predictor.proj(predictor.layernorm(each[:, own.shape[1] :])) for each, own in zip(states, known, strict=True)
    ]


def choose_mask_token(predictor: VJEPA2Predictor, asked_for: int | None = None) -> int:
    """The number asked for, or that of the mask token with the largest norm; 0 where none was trained.

    All start at 0. The published training has one for each length of clips, 0 where there is a single length
    (`vjepa2:src/utils/wrappers.py`), and transformers always takes 1.

    Raises `UserError` for a number that is not there.
    """
    tokens = predictor.embeddings.mask_tokens.detach().flatten(1)
    norms = torch.zeros(len(tokens)) if tokens.is_meta else tokens.norm(dim=1)  # not filled yet: they will start at 0
    if asked_for is not None and not 0 <= asked_for < len(norms):
        raise UserError(f"--mask_token {asked_for}: the predictor has {len(norms)} mask tokens, from 0 on")
    chosen = int(norms.argmax()) if asked_for is None else asked_for
    listed = " ".join(f"{norm:.3g}" for norm in norms.tolist())
    log.info("mask token %d of the predictor is trained; norms at the start: %s", chosen, listed)
    return chosen


def clip_views(options: VJEPA2Options, model: SslModel) -> VideoCrop:
    """The view of a clip. Raises `UserError` for a side that does not divide into patches."""
    size = options.crop_size_of(model)
    if size % PATCH_SIZE:
        raise UserError(f"--crop_size {size}: {model.name} takes multiples of {PATCH_SIZE} pixels")
    return VideoCrop(size, antialias=options.antialias)

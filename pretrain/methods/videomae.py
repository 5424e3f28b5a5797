"""Video masked autoencoder (Tong et al., NeurIPS 2022), as SurgRec-MAE is one; beside it SurgVISTA's distillation."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from timm.layers import DropPath
from torch import Tensor, nn
from transformers import VideoMAEForPreTraining
from transformers.models.videomae.modeling_videomae import VideoMAELayer

from common.base.runtime import UserError, generator
from common.encoders.families.videomae import EPSILON
from common.video.preprocess import normalise
from pretrain.engine.method import Batch, Method, Schedules
from pretrain.engine.reporting import flops_of_blocks, transformer_flops
from pretrain.methods.image_teacher import ImageTeacher, require_grid
from pretrain.methods.options import VideoMAEOptions
from pretrain.objectives.latent_losses import distillation_loss, gather_tokens, pixel_loss, pixel_targets
from pretrain.objectives.masks_image import whole_share
from pretrain.objectives.masks_video import Grid, TokenMasks, Tube
from pretrain.objectives.parameter_groups import ParameterGroup, backbone_groups, head_groups
from pretrain.objectives.reduce import world_size
from pretrain.objectives.schedules import Constant, legacy_warmup_cosine, linearly_scaled
from pretrain.ssl_config import SslModel

LEVELS = 255  # of a uint8 pixel
BETAS = (0.9, 0.95)  # of AdamW, as published
IMAGE_DECODER_LAYERS = 2  # SurgVISTA's


class VideoMAE(Method):
    """The encoder sees the visible tokens of a clip; decoders predict the hidden ones' pixels and teacher's features.

    Batches hold `clip` `(B, T, 3, S, S)` uint8, `number` `(B,)` and, for an image teacher, `teacher_frames`
    `(B, T / 2, 3, R, R)` uint8, the first frame of each tubelet.
    """

    block_classes = (VideoMAELayer,)

    def __init__(
        self,
        network: VideoMAEForPreTraining,
        options: VideoMAEOptions,
        model: SslModel,
        image_teacher: ImageTeacher | None = None,
    ):
        """`network` is taken over, decoder included; `options` are completed.

        Raises `UserError` for a size that cannot be cut or leaves nothing to hide, and a teacher with other patches.
        """
        super().__init__()
        self.config, self.options, self.image_teacher = network.config, options, image_teacher
        self.preprocessing = model.encoder_config().preprocessing
        self.patch, self.tubelet = self.config.patch_size, self.config.tubelet_size
        self.mask = Tube(options.mask_ratio)
        side = _side(self.config.image_size, self.patch, self.mask)
        self.grid: Grid = (self.config.num_frames // self.tubelet, side, side)
        self.student = nn.ModuleDict({"backbone": network.videomae, "pixel_decoder": pixel_decoder(network)})
        if image_teacher is not None:
            width = require_grid(image_teacher, options.teacher_size_of(model), side)
            self.student["image_decoder"] = image_decoder(network, width, generator(options.seed, "image decoder"))
        for part in (network.videomae.encoder.layer, *(decoder.blocks.decoder_layers for decoder in self.decoders)):
            drop_paths(part, options.drop_path)
        self.teacher = nn.ModuleDict()
        self.register_buffer("positions", network.videomae.embeddings.position_embeddings[0], persistent=False)

    @property
    def decoders(self) -> list[TokenDecoder]:
        """That of the pixels, and that of the image teacher's features."""
        return [part for part in self.student.values() if isinstance(part, TokenDecoder)]

    def forward(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """The error of the hidden tokens' pixels, and with an image teacher that of its features there."""
        options, masks = self.options, self.masks(batch, step)
        patches = cut(batch["clip"], self.patch, self.tubelet)
        states = self._encode(self._embed(_at(patches, masks.context), masks.context))
        pixels = self._pixel_loss(states, _at(patches, masks.target), masks)
        if self.image_teacher is None:
            return {"loss": options.pixel_weight * pixels, "loss/pixels": pixels.detach()}
        image = self._distillation_loss(states, batch["teacher_frames"], masks)
        loss = options.pixel_weight * pixels + options.distillation_weight * image
        return {"loss": loss, "loss/pixels": pixels.detach(), "loss/image_features": image.detach()}

    def masks(self, batch: Batch, step: int) -> TokenMasks:
        """The masks of a batch's samples, on the batch's device."""
        samples = batch["number"].tolist()
        masks = self.mask.draw(self.grid, seed=self.options.seed, step=step, samples=samples)
        return masks.to(batch["clip"].device)

    def parameter_groups(self) -> list[ParameterGroup]:
        """All at one rate; encoder and each decoder are clipped apart."""
        heads = (name for name in self.student if name != "backbone")
        groups = [group for name in heads for group in head_groups(self.student[name], name)]
        return [*backbone_groups(self.student["backbone"]), *groups]

    def schedules(self, total_steps: int) -> Schedules:
        """Warm-up and cosine of rates scaled by the global batch, as Video MAE and SurgVISTA do."""
        options = self.options
        global_batch = options.global_batch(world_size())
        rates = (options.start_learning_rate, options.learning_rate, options.final_learning_rate)
        rate = legacy_warmup_cosine(
            *(linearly_scaled(rate, global_batch) for rate in rates),
            warmup_steps=round(options.warmup * total_steps),
            total_steps=total_steps,
        )
        return Schedules(rate, Constant(options.weight_decay), clip_norm=options.clip_norm or None, betas=BETAS)

    def features(self, batch: Batch) -> Tensor:
        """The normalised mean `(B, D)` of all tokens of each clip, as feature extraction takes it."""
        patches = cut(batch["clip"], self.patch, self.tubelet)
        encoder = self.student["backbone"].encoder
        mean = encoder(self._embed(patches)).last_hidden_state.float().mean(dim=1)
        # as in common.encoders.families.videomae, without learned values
        return F.layer_norm(mean, mean.shape[-1:], eps=EPSILON)

    def exported(self) -> nn.Module:
        """The encoder with its pixel decoder, so that a later training finds one too."""
        with torch.device("meta"):
            network = VideoMAEForPreTraining(self.config)
        decoder = self.student["pixel_decoder"]
        network.videomae, network.decoder = self.student["backbone"], decoder.blocks
        network.encoder_to_decoder, network.mask_token = decoder.embed, decoder.mask_token
        return network

    def other_sources(self) -> list[str]:
        """The image teacher's weights."""
        return [self.image_teacher.encoder.weights.source] if self.image_teacher else []

    def flops_per_sample(self) -> float:
        """Of the blocks of encoder and decoders, and of the image teacher as far as its parameters tell."""
        num_tokens = self.grid[0] * self.grid[1] * self.grid[2]
        num_visible = self.mask.draw(self.grid, seed=0, step=0, samples=[0]).context.shape[1]
        encoder_blocks, width = self.student["backbone"].encoder.layer, self.config.hidden_size
        total = flops_of_blocks(encoder_blocks, num_visible, width=width)
        for decoder in self.decoders:
            width = self.config.decoder_hidden_size
            total += flops_of_blocks(decoder.blocks.decoder_layers, num_tokens, width=width)
        if self.image_teacher is not None:
            num_parameters = self.image_teacher.encoder.num_parameters
            total += transformer_flops(num_parameters, num_tokens, num_layers=0, width=0, backward=False)
        return total

    def _embed(self, patches: Tensor, places: Tensor | slice = slice(None)) -> Tensor:
        """Patches `(B, K, tubelet, 3, patch, patch)` uint8 at `places` -> tokens `(B, K, D)`.

        The same numbers as the convolution over the whole clip, computed for the visible tokens alone.
        """
        projection = self.student["backbone"].embeddings.patch_embeddings.projection
        pixels = normalise(patches, self.preprocessing).flatten(2)
        # the convolution's weights are (D, 3, tubelet, patch, patch), a patch's pixels have time before colour
        tokens = F.linear(pixels, projection.weight.transpose(1, 2).flatten(1), projection.bias)
        return tokens + self.positions[places].to(tokens.dtype)

    def _encode(self, tokens: Tensor) -> Tensor:
        """States `(B, K, D)` for the decoders, normalised where the network has a norm of its own for that."""
        backbone = self.student["backbone"]
        states = backbone.encoder(tokens).last_hidden_state
        return states if backbone.layernorm is None else backbone.layernorm(states)

    def _pixel_loss(self, states: Tensor, hidden: Tensor, masks: TokenMasks) -> Tensor:
        """Of the hidden patches `(B, M, tubelet, 3, patch, patch)` uint8, each taken for a clip of one token."""
        scale = (1 / LEVELS,) * 3  # what brings uint8 to 0..1: these pixels were never normalised
        targets = pixel_targets(hidden.flatten(0, 1), mean=(0,) * 3, std=scale, patch=self.patch, tubelet=self.tubelet)
        predictions = self.student["pixel_decoder"](states, masks)
        return pixel_loss(predictions, targets.view(predictions.shape))

    def _distillation_loss(self, states: Tensor, frames: Tensor, masks: TokenMasks) -> Tensor:
        features = gather_tokens(self.image_teacher(frames), masks.target)
        predictions = self.student["image_decoder"](states, masks)
        return distillation_loss(predictions, features, normalise_teacher=self.options.normalise_teacher)


class TokenDecoder(nn.Module):
    """Predicts the hidden tokens: visible ones, then a learned token for each hidden one, all with their positions."""

    def __init__(self, embed: nn.Linear, mask_token: nn.Parameter, blocks: nn.Module, positions: Tensor):
        """`blocks` are a decoder of transformers' Video MAE; `positions` `(N, W)` for its width W."""
        super().__init__()
        self.embed, self.mask_token, self.blocks = embed, mask_token, blocks
        self.register_buffer("positions", positions, persistent=False)

    def forward(self, states: Tensor, masks: TokenMasks) -> Tensor:
        """States `(B, K, D)` of the visible tokens -> predictions `(B, M, P)` for the hidden ones, in their order."""
        visible = self.embed(states) + self.positions[masks.context]
        hidden = self.mask_token + self.positions[masks.target]
        return self.blocks(torch.cat([visible, hidden], dim=1), masks.target.shape[1]).logits


def pixel_decoder(network: VideoMAEForPreTraining) -> TokenDecoder:
    """The network's own decoder."""
    positions = network.position_embeddings[0]
    return TokenDecoder(network.encoder_to_decoder, network.mask_token, network.decoder, positions)


def image_decoder(network: VideoMAEForPreTraining, feature_dim: int, random: torch.Generator) -> TokenDecoder:
    """A decoder like that of the pixels, with two blocks, for image features; it starts at random values (Xavier)."""
    decoder = copy.deepcopy(pixel_decoder(network))
    decoder.blocks.decoder_layers = decoder.blocks.decoder_layers[:IMAGE_DECODER_LAYERS]
    decoder.blocks.head = nn.Linear(network.config.decoder_hidden_size, feature_dim)
    for module in decoder.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight, generator=random)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm):
            module.reset_parameters()
    nn.init.trunc_normal_(decoder.mask_token, std=0.02, generator=random)
    return decoder


def cut(clips: Tensor, patch: int, tubelet: int) -> Tensor:
    """Clips `(B, T, 3, H, W)` -> patches `(B, N, tubelet, 3, patch, patch)`, by time, row, column."""
    parts = clips.unflatten(4, (-1, patch)).unflatten(3, (-1, patch)).unflatten(1, (-1, tubelet))
    # (B, time, within tubelet, 3, row, within row, column, within column)
    return parts.permute(0, 1, 4, 6, 2, 3, 5, 7).flatten(1, 3)


def drop_paths(blocks: Iterable[nn.Module], rate: float) -> None:
    """Stochastic depth (Huang et al., ECCV 2016), rising from 0 at the first block to `rate` at the last.

    transformers' Video MAE has none, but a dropout of rate 0 at the end of both branches of a block: in its place.
    """
    blocks = list(blocks)
    for block, chance in zip(blocks, torch.linspace(0, rate, len(blocks)).tolist(), strict=True):
        block.attention.output.dropout, block.output.dropout = DropPath(chance), DropPath(chance)


def _at(patches: Tensor, places: Tensor) -> Tensor:
    """The patches `(B, K, ...)` of `(B, N, ...)` at the places `(B, K)`."""
    return gather_tokens(patches.flatten(2), places).unflatten(2, patches.shape[2:])


def _side(size: int, patch: int, mask: Tube) -> int:
    """Patches a side of the input, of which the mask hides at least one."""
    side, rest = divmod(size, patch)
    if rest:
        raise UserError(f"--crop_size {size}: Video MAE takes multiples of {patch} pixels")
    if not whole_share(mask.mask_ratio, side**2):
        raise UserError(
            f"--crop_size {size}: a mask ratio of {mask.mask_ratio} hides none of {side} x {side} places; "
            "raise one of them"
        )
    return side

"""Settings of an extraction, and the settings under which existing features were made."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from common.base.options import check_ranges, option
from common.base.paths import DEFAULT_DATASET, require_name
from common.base.runtime import UserError
from common.encoders.config import EncoderConfig, WindowChoice

if TYPE_CHECKING:
    from common.dataset.description import DatasetDescription

# a window's anchor as sidecars spell it
CENTRE, END = "clip_len // 2", "clip_len - 1"


@dataclass(frozen=True)
class ExtractionConfig:
    """The flags of `extract_features.py`."""

    dataset: str = option(DEFAULT_DATASET, group="data")
    """Data set: a name under data/ or a path; where none is named, the only one in data/."""
    videos: str | None = option(None, group="data")
    """Extract the videos of this folder instead of the data set's videos/."""
    accept_damaged: bool = option(False, group="data")
    """Extract damaged videos too: those that lack frames or have places that do not decode. Their features are marked."""
    variant: str | None = option(None, group="output")
    """Write to features/<Encoder>@<variant>/ (default: from the weights that --weights names, --recipe, --clip_spacing
    and --anchor)."""
    weights: str | None = option(None, group="model")
    """A published name, an address, a local file or folder, each with ::NETWORK for one of several in it, NAME=FILE for a file
    of the network that a published name means, or 'random' for untrained weights (default: the model's config)."""
    lora_path: str | None = option(None, group="model")
    """An adapter folder of pretrain/finetune_lora.py, for CataractFT (default: pretrain/checkpoints/NAME/best_lora), or a
    LoRA adapter of peft, merged into the published weights."""
    ssl_checkpoint: str | None = option(None, group="model")
    """The weights under the adapter (default: the recorded or published ones); alone, a Stage 1 export for CataractFT
    without any adapter."""
    fps: float | None = option(None, group="data", unit="frames per second", above=0)
    """Frames per second to sample, by nearest timestamp (default: every frame, or those that carry labels)."""
    every: int | None = option(None, group="data", unit="frames", above=0)
    """Take every n-th decoded frame, from the first."""
    all_frames: bool = option(False, group="data")
    """Take every frame, also where dataset.yaml says that labels have a rate of their own."""
    pooling: str | None = option(None, group="model")
    """How tokens become one vector, such as cls, mean, cls+mean (default: the config's)."""
    crop: Literal["none", "center"] | None = option(None, group="model")
    """center: the library's own crop (default: the whole field)."""
    clip_len: int | None = option(None, group="model", unit="frames", above=0)
    """Clip encoders: frames of a window (default: the recipe's)."""
    clip_spacing: float | None = option(None, group="model", unit="seconds", above=0)
    """Clip encoders: from one frame of a window to the next, whichever frames get a feature (default: the recipe's; without
    any, neighbours among the frames that get one)."""
    anchor: Literal["centre", "end"] | None = option(None, group="model")
    """Clip encoders: where a window has its frame; end: nothing after it, for online recognition (default: the recipe's)."""
    recipe: Literal["study", "published"] | None = option(None, group="model")
    """Clip encoders: windows as in the study (neighbouring frames), or as the encoder's authors take them (default: study;
    for CataractFT as its weights were trained)."""
    stride: int = option(1, group="model", unit="frames", above=0)
    """Clip encoders: a window at every n-th frame, linear interpolation between (with --anchor end the value before)."""
    mode: Literal["window", "tokens"] = option("window", group="model")
    """Clip encoders: a window around each frame, or (much cheaper) overlapping clips' own tokens."""
    precision: Literal["auto", "fp32", "bf16"] = option("auto", group="machine")
    """Arithmetic; auto: bf16 on a GPU that has it, else fp32."""
    dtype: Literal["float32", "float16"] = option("float32", group="output")
    """Number format of the feature files."""
    decoder: Literal["pyav", "opencv", "decord", "torchcodec"] = option("pyav", group="machine")
    """Video decoder."""
    batch_size: int | None = option(None, group="machine", unit="frames or windows", above=0)
    """Frames or windows in a batch (default: fixed on a CPU, by free memory on a GPU)."""
    num_decoders: int = option(1, group="machine", unit="processes", above=0)
    """Decoders, each with a video of its own."""
    compile: bool = option(False, group="machine")
    """torch.compile the network."""
    shard: str | None = option(None, group="machine")
    """i/n: this process's share of the videos (default: a SLURM array's own)."""

    def __post_init__(self) -> None:
        check_ranges(self)
        chosen = [name for name in ("fps", "every", "all_frames") if getattr(self, name)]
        if len(chosen) > 1:
            raise UserError(f"--{' and --'.join(chosen)}: each says which frames to take; give one of them")
        if self.variant is not None:
            require_name("variant", self.variant)

    @property
    def window(self) -> WindowChoice:
        """What is asked of a clip encoder's window."""
        return WindowChoice(self.recipe, self.clip_len, self.clip_spacing, self.anchor)


def on_label_grid(options: ExtractionConfig, description: "DatasetDescription") -> ExtractionConfig:
    """Options that take the frames which carry labels, where `dataset.yaml` gives labels a rate and no option another."""
    if options.fps or options.every or options.all_frames:
        return options
    return replace(options, fps=description.label_fps, every=description.label_every)


def with_options(config: EncoderConfig, options: ExtractionConfig) -> EncoderConfig:
    """A model's configuration with what an extraction asks for: named weights, pooling, crop, adapter.

    The window follows when the weights are known (`EncoderConfig.with_window`).
    Raises `UserError` where the encoder does not have it.
    """
    config = config.with_weights(options.weights)
    if options.pooling and options.pooling not in config.poolings:
        known = ", ".join(config.poolings) or f"{config.pooling} only"
        raise UserError(f"--pooling {options.pooling}: {config.title} has {known}")
    if (options.stride > 1 or options.mode == "tokens") and config.clip_len is None:
        raise UserError(f"--stride, --mode tokens: {config.title} sees single frames; use --fps to sample")
    return replace(
        config,
        pooling=options.pooling or config.pooling,
        lora_path=options.lora_path or config.lora_path,
        ssl_checkpoint=options.ssl_checkpoint or config.ssl_checkpoint,
        preprocessing=replace(config.preprocessing, crop=options.crop or config.preprocessing.crop),
    )


def variant_of(config: EncoderConfig, options: ExtractionConfig) -> str | None:
    """Variant of the features folder: the one asked for, else from the flags that choose weights and windows.

    Named weights other than the model's own, a recipe other than its own, the spacing, the anchor; None without any.
    """
    if options.variant:
        return options.variant
    parts = []
    name, _, network = (options.weights or "").partition("::")
    name = (config.named_file(name) or (name,))[0]
    if name in config.named_weights and config.address(name) != config.weights:
        parts += [name, *([network] if network else [])]
    if options.recipe not in (None, config.recipe):
        parts.append(options.recipe)
    if options.clip_spacing is not None:
        parts.append(f"spacing{options.clip_spacing:g}")
    if options.anchor not in (None, config.anchor):
        parts.append(options.anchor)
    return "-".join(parts) or None


def extraction_like(identity: dict[str, Any], encoder: EncoderConfig, weights: str | None = None) -> ExtractionConfig:
    """Options that repeat how features with this `identity` (a sidecar's) were made.

    `weights` says where the encoder's weights are now, when that is elsewhere.
    """
    window, record = identity["window"] or {}, identity["weights"]
    # the flags that choose the recorded weights; none where the model's config names the same
    source = weights or record["source"]
    weight_options = {}
    if record.get("adapter"):
        weight_options = {"ssl_checkpoint": source, "lora_path": record["adapter"]["source"]}
    elif source != encoder.weights:
        is_own = encoder.weights.startswith("pretrain:") and source != "random"
        weight_options = {"ssl_checkpoint" if is_own else "weights": source}
    return ExtractionConfig(
        fps=identity["sampling"]["fps"],
        every=identity["sampling"].get("every"),
        all_frames=not (identity["sampling"]["fps"] or identity["sampling"].get("every")),
        # an encoder that lists no poolings takes none as an option
        pooling=identity["pooling"] if encoder.poolings else None,
        crop=identity["preprocessing"]["crop"],
        # as they were, whatever the recipe of the model or of its weights is today
        recipe="study" if window else None,
        clip_len=window.get("clip_len"),
        clip_spacing=window.get("spacing"),
        anchor=("end" if window.get("anchor") == END else "centre") if window else None,
        stride=window.get("stride", 1),
        mode=window.get("mode", "window"),
        dtype=identity["dtype"],
        decoder=identity["decoder"],
        **weight_options,
    )

"""Settings of a probe, as flags, as YAML, and as they are recorded."""

from dataclasses import dataclass

from common.base.options import check_ranges, option
from common.base.paths import require_name

DEFAULT_SEED = 42


@dataclass(frozen=True)
class ProbeConfig:
    """What decides a probe; the flags of `common.probe`."""

    dataset: str | None = option(None, group="data")
    """Data set: a name under data/ or a path; its dataset.yaml says task: multilabel or clips."""
    model: str | None = option(None, group="data")
    """Folder under models/ whose features are used (default: the current one)."""
    variant: str | None = option(None, group="data")
    """Feature variant: features/<Encoder>@<variant>/."""
    splits: str | None = option(None, group="data")
    """Named list of splits, splits/<NAME>/, such as official (default: of clips the column split; generated folds)."""
    seed: int = option(DEFAULT_SEED, minimum=-(1 << 63), maximum=(1 << 63) - 1)
    """Seed of which training videos are kept aside to choose C."""
    most_frames: int = option(20_000, group="training", unit="frames", minimum=2)
    """Of more labelled training frames every n-th of each set of classes is learned from; all test frames are scored."""
    run: str | None = option(None, group="output")
    """Name that keeps this run apart from others (default: from what differs from defaults)."""

    def __post_init__(self) -> None:
        check_ranges(self)
        for noun in ("run", "variant", "model", "splits"):
            if (name := getattr(self, noun)) is not None:
                require_name(noun, name)

    @property
    def run_name(self) -> str | None:
        """The run's folder name: `run`, or what differs from the defaults, or None."""
        derived = [f"splits={self.splits}" if self.splits else None, self.variant]
        derived.append(f"seed{self.seed}" if self.seed != ProbeConfig.seed else None)
        derived.append(f"frames{self.most_frames}" if self.most_frames != ProbeConfig.most_frames else None)
        return self.run or "-".join(part for part in derived if part) or None

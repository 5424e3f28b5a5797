"""The files of one training, all in one folder."""

import re
from dataclasses import dataclass
from pathlib import Path

from common.base import paths

STEP_FILE = re.compile(r"step_(\d{6,})\.pt")


@dataclass(frozen=True)
class RunFolder:
    """File locations of a training, by default below `pretrain/checkpoints/ssl/<long name>`."""

    root: Path

    @property
    def final(self) -> Path:
        """The state after the last step."""
        return self.root / paths.FINAL_STATE

    @property
    def best(self) -> Path:
        """The state at which the phase probe was most accurate."""
        return self.root / paths.BEST_STATE

    @property
    def metrics(self) -> Path:
        """One JSON record a step."""
        return self.root / paths.METRICS

    @property
    def manifest(self) -> Path:
        """The videos that were trained on."""
        return self.root / paths.MANIFEST

    @property
    def export(self) -> Path:
        """The trained backbone, readable without this package."""
        return self.root / paths.EXPORT

    def step_file(self, step: int) -> Path:
        """The state after `step` steps."""
        return self.root / f"step_{step:06d}.pt"

    def step_files(self) -> dict[int, Path]:
        """Finished step files by step, ascending; half-written ones have other names."""
        found = ((STEP_FILE.fullmatch(path.name), path) for path in self.root.glob("step_*.pt"))
        return dict(sorted((int(match[1]), path) for match, path in found if match))

    def prune(self, keep_last: int, protected: int | None = None) -> None:
        """Delete all step files but the last ones and the newest up to step `protected`."""
        files = self.step_files()
        kept = set(list(files)[-keep_last:])
        if protected is not None:  # the last one from before the features began to lose variety
            kept |= {max((step for step in files if step <= protected), default=-1)}
        for step in files.keys() - kept:
            files[step].unlink()

    def remove_partial(self) -> None:
        """Delete what a killed process left half written."""
        for path in self.root.glob(".*.partial.pt"):
            path.unlink()

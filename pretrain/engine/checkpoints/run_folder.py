"""The files of one training, all in one folder."""

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from common.base import paths
from pretrain.engine.checkpoints.sharded_checkpoint import is_complete

STEP = re.compile(r"step_(\d{6,})(\.pt)?")
FORMER_AND_PARTIAL = (".*.partial", ".*.former")


@dataclass(frozen=True)
class RunFolder:
    """File locations of a training, by default below `pretrain/checkpoints/ssl/<long name>`.

    The state of a training is one file, or of a sharded one a folder of the same name without its suffix.
    """

    root: Path

    @property
    def final(self) -> Path:
        """The state after the last step."""
        return self._state(paths.FINAL_STATE)

    @property
    def best(self) -> Path:
        """The state at which the phase probe was most accurate."""
        return self._state(paths.BEST_STATE)

    def _state(self, name: str) -> Path:
        """The file, or the folder where that alone is there."""
        file, folder = self.root / name, (self.root / name).with_suffix("")
        return folder if is_complete(folder) and not file.is_file() else file

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
        """The state after `step` steps, as one file."""
        return self.root / f"step_{step:06d}.pt"

    def step_files(self) -> dict[int, Path]:
        """Finished states by step, ascending; half-written ones have other names."""
        found = ((STEP.fullmatch(path.name), path) for path in self.root.glob("step_*"))
        return dict(sorted((int(match[1]), path) for match, path in found if match and (match[2] or is_complete(path))))

    def prune(self, keep_last: int, protected: int | None = None) -> None:
        """Delete all states of steps but the last ones and the newest up to step `protected`."""
        files = self.step_files()
        kept = set(list(files)[-keep_last:])
        if protected is not None:  # the last one from before the features began to lose variety
            kept |= {max((step for step in files if step <= protected), default=-1)}
        for step in files.keys() - kept:
            _delete(files[step])

    def remove_partial(self) -> None:
        """Delete what a killed process left half written."""
        for path in [
            *self.root.glob(".*.partial.pt"),
            *(path for kind in FORMER_AND_PARTIAL for path in self.root.glob(kind)),
        ]:
            _delete(path)


def _delete(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()

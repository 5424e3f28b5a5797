"""Where weights came from: the words that asked for them, the file, its hash."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.base.runtime import read_json
from common.encoders.weights.tensors import weight_files

RANDOM = "random"
NONE = "none"
LOCAL = "local"


@dataclass(frozen=True)
class WeightSource:
    """Where weights came from: the words that asked for them, the file or folder, and its SHA-256 (None: random, none).

    Of a folder with several weight files `sha256` is that of the JSON `{file: its sha256}`.
    """

    source: str
    path: Path | None = None
    sha256: str | None = None
    adapter: WeightSource | None = None
    """A LoRA adapter to merge into the loaded network."""

    @property
    def is_random(self) -> bool:
        return self.source == RANDOM

    @property
    def folder_config(self) -> dict[str, Any] | None:
        """`config.json` of a folder of weights, which says what network they are for; None: there is none."""
        file = self.path / "config.json" if self.path and self.path.is_dir() else None
        return read_json(file) if file and file.is_file() else None

    def to_json(self) -> dict[str, Any]:
        """The record of a sidecar."""
        record: dict[str, Any] = {"source": self.source, "file": None, "sha256": self.sha256}
        if self.path:
            files = weight_files(self.path)
            record["file"] = files[0].name if len(files) == 1 else self.path.name
            if self.path.parent.name == "snapshots":  # of the Hugging Face cache
                record["revision"] = self.path.name
        return record | ({"adapter": self.adapter.to_json()} if self.adapter else {})

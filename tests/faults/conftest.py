"""Real processes and signals on small drawn data: a root of its own for each test, and what must hold when all is over."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
DRAWN = CHECKOUT / "tests" / "artefacts" / "0.1.0"  # data, and the words of commands that fit them
STAGE_1 = Path("pretrain") / "checkpoints" / "ssl" / "vjepa2-tiny"
KILLS = int(os.environ.get("KILLS", "3"))
PATIENCE_SECONDS = 600  # on a busy machine a command of ten seconds has taken two minutes
COMMANDS = json.loads((DRAWN / "commands.json").read_text(encoding="utf-8"))
COMMANDS["report"] = ["compute_results.py", "--dataset", "mini", "--models", "ColorHistogram", "--compare-kfold", "2"]


@dataclass(frozen=True)
class Root:
    """A folder that commands work in, with data to start from."""

    path: Path

    def start(self, words: Sequence[str], **changes) -> subprocess.Popen:
        """Start a command of this checkout; what it says is kept as text on `stderr`."""
        first = words[0] if words[0] == "-m" else str(CHECKOUT / words[0])
        own = {
            "SICS155_ROOT": str(self.path),
            "PYTHONPATH": str(CHECKOUT),
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
        }
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("SLURM")}
        streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
        return subprocess.Popen(
            [sys.executable, first, *words[1:]], cwd=self.path, env=inherited | own, text=True, **streams | changes
        )

    def run(self, words: Sequence[str], code: int = 0) -> str:
        """Run a command to its end, which must be this exit code and without a traceback; returns what it said."""
        process = self.start(words)
        try:
            said = process.communicate(timeout=PATIENCE_SECONDS)[1]
        finally:
            process.kill()  # without effect on one that has ended
        assert process.returncode == code, said
        assert "Traceback" not in said
        return said

    def kill(self, words: Sequence[str], seconds: float) -> bool:
        """Start a command and end it by SIGKILL after some time; False where it has ended by then."""
        process = self.start(words, stderr=subprocess.DEVNULL)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            return True
        return False

    def content(self, *patterns: str) -> dict[str, bytes]:
        """Files by their path below the root."""
        found = [path for pattern in patterns for path in self.path.glob(pattern)]
        return {str(path.relative_to(self.path)): path.read_bytes() for path in sorted(found) if path.is_file()}

    def leftovers(self) -> list[Path]:
        """Temporary files and locks."""
        return [
            path
            for path in self.path.rglob(".*")
            if ".partial" in path.name or path.name.endswith((".lock", ".former"))
        ]

    def processes(self) -> list[psutil.Process]:
        """Those that work in here."""
        found = []
        for process in psutil.process_iter():
            try:
                is_own = process.environ().get("SICS155_ROOT") == str(self.path)
                if is_own and process.pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def assert_quiet(self) -> None:
        """Within 5 s no process works in here any more."""
        deadline = time.monotonic() + 5
        while self.processes() and time.monotonic() < deadline:
            time.sleep(0.1)
        assert self.processes() == []

    def with_input_of(self, name: str) -> Root:
        """The same with what a command needs: features of ColorHistogram, a network of Stage 1."""
        if name in ("train_interrupted", "run_k_folds", "report"):
            self.with_features()
        if name == "finetune":
            shutil.copytree(DRAWN / STAGE_1, self.path / STAGE_1, ignore=shutil.ignore_patterns("*.pt"))
        if name == "report":
            self.with_results()
        return self

    def with_features(self) -> Root:
        """The same with features of ColorHistogram."""
        shutil.copytree(DRAWN / "data" / "mini" / "features" / "ColorHistogram", self.features)
        return self

    def with_results(self) -> Root:
        """The same with runs of ColorHistogram on all folds."""
        results = Path("models") / "ColorHistogram" / "results"
        shutil.copytree(DRAWN / results, self.path / results, ignore=shutil.ignore_patterns("seed7"))
        return self

    @property
    def features(self) -> Path:
        return self.path / "data" / "mini" / "features" / "ColorHistogram"


def make_root(path: Path) -> Root:
    """A root with the drawn data but without anything that a command made of them; folds excepted."""
    shutil.copytree(DRAWN / "data", path / "data", ignore=shutil.ignore_patterns("features"))
    shutil.copytree(DRAWN / "start", path / "start")
    shutil.copy(DRAWN / "classes.yaml", path)
    for name in ("ColorHistogram", "V-JEPA2-Tiny", "V-JEPA2-ViT-L"):  # the last one's window is that of Stage 1
        (path / "models" / name).mkdir(parents=True)
        shutil.copy(CHECKOUT / "models" / name / "config.yaml", path / "models" / name)
    return Root(path)


@pytest.fixture
def root(tmp_path) -> Root:
    """See `make_root`; whatever a test does, no process may stay."""
    made = make_root(tmp_path / "root")
    yield made
    left = made.processes()
    for process in left:
        process.kill()
    assert left == []

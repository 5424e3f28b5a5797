"""Runs commands on damaged inputs, many in one process: torch is imported once, each command has a fork of its own.

python -m tests.faults.driver WORLD WORK_FOLDER CASES_FILE        the pickled list of cases

Each line `FIRST LAST RESULTS_FILE` of its input has it try these cases, write a list of `Outcome`s as JSON, and say so in
a line. Each input is damaged in a fresh copy of the world, in which its command then runs as it does from a shell: same
messages, same exit code.
"""

from __future__ import annotations

import importlib
import json
import os
import pickle
import random
import resource
import shutil
import signal
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.faults.mutators import SOUND, Damage, damages_of
from tests.faults.world import TARGETS, Command, Target

LIMIT_SECONDS = 20  # of CPU time, which other work on the machine doesn't lengthen
PATIENCE_SECONDS = 180  # whoever hasn't ended by then waits for what never comes
MEMORY_BYTES = 12 << 30  # of addresses: what grows without end stops here, and not when the machine swaps
MOST_SAID = 20_000  # characters kept of what a command said
SEED = "13"
KILLED = -1  # for the exit code of what ran, or waited, for too long
# what the commands import as they run: here once, or every fork would
IMPORTED = {
    "common.audit": ("common.checks.dataset",),
    "common.evaluation": ("sklearn.metrics", "scipy.stats"),
    "common.export_to_excel": ("common.reports.results", "openpyxl", "sklearn.metrics", "scipy.stats"),
    "common.extract_features": ("common.features.extract", "common.encoders.families.vjepa2", "transformers", "peft",
                                "transformers.models.vjepa2.modeling_vjepa2"),
    "common.kfold_summary": ("common.reports.results", "common.reports.text", "sklearn.metrics", "scipy.stats"),
    "common.predict_video": ("common.head.new_videos", "common.features.extract", "common.reports.pictures.overlay",
                             "common.reports.pictures.timeline"),
    "common.run_k_folds": ("common.head.reproduce", "common.head.folds", "common.reports.results",
                           "common.reports.text", "sklearn.metrics", "scipy.stats"),
    "common.train": ("common.head.training", "common.head.prediction", "common.head.transfer", "sklearn.metrics", "scipy.stats"),
    "compute_results": ("common.reports.comparison", "common.reports.written", "common.reports.exchange.bundle",
                        "sklearn.metrics", "scipy.stats", "plotly.graph_objects", "matplotlib.pyplot"),
    "data.import_dataset": ("av",),
    "pretrain.finetune_lora": ("pretrain.lora.training", "transformers.models.vjepa2.modeling_vjepa2", "peft"),
    "pretrain.pack_videos": ("pretrain.video_data.packing",),
    "pretrain.ssl_pretrain_vjepa2": ("pretrain.engine.loop", "pretrain.methods.vjepa2",
                                     "transformers.models.vjepa2.modeling_vjepa2"),
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A damage of a target, and the command that meets it."""

    target: Target
    damage: Damage
    command: Command

    @property
    def is_sound(self) -> bool:
        """Whether nothing is damaged, so that the command must end well."""
        return self.damage.name == SOUND

    @property
    def name(self) -> str:
        return f"{self.target.path}: {self.damage.name} -> {self.command.module} {' '.join(self.command.words[:4])}"


@dataclass(frozen=True)
class Outcome:
    """What a command did with a damaged input."""

    name: str
    code: int
    cpu_seconds: float
    said: str
    missing: list[str]
    """Files that should be there whatever the one input is like."""
    is_replaced: bool
    """Whether a sound file is in the place of the damaged one now: what can be made again is."""
    has_run_code: bool
    has_written_outside: bool


def chosen_cases(world: Path, count: int | None) -> list[Case]:
    """`count` of the damaged inputs, drawn with the seed, those with code always; None: all. Sound ones come besides."""
    cases = all_cases(world)
    always = {place for place, case in enumerate(cases) if case.is_sound or case.damage.carries_code}
    others = [place for place in range(len(cases)) if place not in always]
    num_drawn = len(others) if count is None else count - sum(not cases[place].is_sound for place in always)
    drawn = random.Random(SEED).sample(others, min(max(num_drawn, 0), len(others)))
    return [cases[place] for place in sorted({*always, *drawn})]


def all_cases(world: Path) -> list[Case]:
    """Every target's damages, its commands in turn, each command first with sound files; the same for the same world.

    Of the damages all that carry code are tried, the others evenly chosen.
    """
    cases: list[Case] = []
    for target in TARGETS:
        content = (world / target.path).read_bytes()
        known = {case.command for case in cases}
        cases += [Case(target, Damage(SOUND, content), command) for command in target.commands if command not in known]
        damages = damages_of(target.form, content, f"{SEED}: {target.path}")
        chosen = [damage for damage in damages if damage.carries_code]
        others = [damage for damage in damages if not damage.carries_code]
        share = max(1.0, len(others) / (target.most - len(chosen)))
        chosen += [others[int(place * share)] for place in range(min(target.most - len(chosen), len(others)))]
        cases += [
            Case(target, damage, target.commands[number % len(target.commands)]) for number, damage in enumerate(chosen)
        ]
    return cases


def put(damage: Damage, path: Path) -> None:
    """Leave the damaged input at `path`."""
    path.unlink()
    if damage.stands_for == "folder":
        path.mkdir()
    elif damage.stands_for == "pipe":
        os.mkfifo(path)
    elif damage.stands_for == "dangling link":
        path.symlink_to("nowhere")
    else:
        path.write_bytes(damage.content)


def is_replaced(damage: Damage, path: Path) -> bool:
    """Whether a command has put another file in the place of the damaged one."""
    return path.is_file() and (damage.stands_for != "file" or path.read_bytes() != damage.content)


def run(case: Case, world: Path, folder: Path) -> Outcome:
    """Run a case in a copy of the world below `folder`, which is removed."""
    root = folder / "inner" / "root"
    shutil.copytree(world, root, symlinks=True)
    before = set(folder.rglob("outside*"))
    put(case.damage, root / case.target.path)
    code, cpu_seconds, said = run_command(case.command, root, folder / "said.txt")
    outcome = Outcome(
        case.name,
        code,
        round(cpu_seconds, 2),
        said,
        [name for name in case.command.leaves if not (root / name).is_file()],
        is_replaced(case.damage, root / case.target.path),
        any(folder.rglob("MARKER")),
        set(folder.rglob("outside*")) != before
        or {path.name for path in folder.iterdir()} - {"inner", "said.txt"} != set(),
    )
    shutil.rmtree(folder)
    return outcome


def run_command(command: Command, root: Path, said: Path) -> tuple[int, float, str]:
    """Exit code (`KILLED` after a limit), seconds of CPU and output of a command in a fork of this process."""
    return finish(start(command, root, said), said)


def start(command: Command, root: Path, said: Path) -> int:
    """The number of a fork of this process that is the command, in a group of its own."""
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        _become(command, root, said)
    return child


def finish(child: int, said: Path) -> tuple[int, float, str]:
    """As `run_command`, of one that was started."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    done = 0
    while not done and time.monotonic() < deadline:
        time.sleep(0.005)
        done, status, usage = os.wait4(child, os.WNOHANG)
    if not done:
        os.killpg(child, signal.SIGKILL)
        _, status, usage = os.wait4(child, 0)
    code = os.waitstatus_to_exitcode(status)
    is_killed = code in (-signal.SIGKILL, -signal.SIGXCPU)
    return KILLED if is_killed else code, usage.ru_utime + usage.ru_stime, _read(said)


def import_for(module: str) -> None:
    """Import a command and what it imports as it runs, so that no fork does."""
    import torch  # noqa: F401

    for name in (module, *IMPORTED.get(module, ())):
        importlib.import_module(name)


def _read(said: Path) -> str:
    text = said.read_text(encoding="utf-8", errors="replace")
    return text if len(text) <= MOST_SAID else f"{text[:MOST_SAID]} ... {len(text)} characters"


def _become(command: Command, root: Path, said: Path) -> None:
    """Be the command, in a process that was forked for it: never returns."""
    stream = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for number, source in ((0, nothing), (1, stream), (2, stream)):
        os.dup2(source, number)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (LIMIT_SECONDS, LIMIT_SECONDS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.chdir(root)
    os.environ |= {
        "SICS155_ROOT": str(root), "HF_HUB_OFFLINE": "1", "HOME": str(root), "XDG_CACHE_HOME": str(root / "cache"),
        "TMPDIR": str(root),
    }  # fmt: skip
    code = 70
    try:
        from common.base.runtime import run_main

        main = importlib.import_module(command.module).main
        run_main(lambda: main(list(command.words), **dict(command.keywords)))
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 0 if error.code is None else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def main() -> None:
    """Entry point of `python -m tests.faults.driver`."""
    world, work, cases_file = map(Path, sys.argv[1:])
    cases = pickle.loads(cases_file.read_bytes())
    for line in sys.stdin:
        first, last, results = line.rstrip("\n").split(" ", 2)
        chosen = cases[int(first) : int(last)]
        for module in {case.command.module for case in chosen}:
            import_for(module)
        outcomes = [asdict(run(case, world, work / f"case_{number}")) for number, case in enumerate(chosen)]
        Path(results).write_text(json.dumps(outcomes), encoding="utf-8")
        print("done", flush=True)


if __name__ == "__main__":
    main()

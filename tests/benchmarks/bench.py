"""Every benchmark of this room in one run: `make bench` (about ten minutes), `make bench-full` (longer).

python -m tests.benchmarks.bench [--full] [--repeats 3] [--only extraction] [--peer DIR]

Writes `comparison_results/benchmarks.md` and `.json`; `python docs/make_speed.py` copies them to docs/speed.md. The contract of a script: called
with the words of a case it prints seconds as JSON in its last line, a number or `{"seconds": ...}`. All sides of a group of cases run in
turn, each in a process of its own, and what several of them need once a turn. `--peer` is a checkout of sj-li/MS-TCN2, whose own training is
the head's reference then. `--full` runs scripts without such sides too.
"""

from __future__ import annotations

import argparse
import ast
import datetime
import importlib
import io
import json
import multiprocessing
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from common.base import paths
from common.base.children import num_cores
from common.base.files import read_text, write_json, write_text
from common.base.runtime import UserError, git_state, run_main, versions
from common.head.networks.catalogue import DEFAULT_HEAD, HEADS
from tests.benchmarks.bench_table import Row, document

ROOM = Path(__file__).resolve().parent
FULL_SCRIPTS = (
    "clip_modes",
    "online",
    "extraction_memory",
    "weights_memory",
    "soak",
    "report_scale",
    "ssl_data",
    "ssl_steps",
)
# a script that starts no processes, and what it loads: its runs are forked from a process that has it, which spares 4 s of each. Not the
# head's: steps of a few milliseconds varied more in forked processes.
READY, LIBRARIES = "extraction", ("torch", "torchvision", "timm", "tests.benchmarks.extraction")
GROWTH = ("audit", "folds", "status")  # of `make bench`; all with --full
HEAD_FRAMES, HEAD_DIM = 15_000, 2048
SHORT_FRAMES, SHORT_STEPS = 500, 20  # of a short video, and of those of the other heads; timed steps
# those of a CPU are for one with native bf16
HEAD_LIMITS = {"cpu": {"fp32": 0.52, "bf16": 0.30}, "cuda": {"fp32": 0.15, "bf16": 0.15}}
COMMAND_MORE = 0.03  # that a step may take through the command


@dataclass(frozen=True)
class Case:
    """Words of a script for our side, and for the reference (several runs: their sum)."""

    what: str
    ours: tuple[str, ...]
    reference: str
    theirs: tuple[tuple[str, ...], ...]
    limit: float | None = None


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--full", action="store_true", help="more repeats, all of growth.py, and the scripts without two sides"
    )
    parser.add_argument("--repeats", type=int, help="turns of both sides (default: 3, with --full 7)")
    parser.add_argument(
        "--only", default="", metavar="TEXT", help="cases whose description holds this; nothing else is run"
    )
    parser.add_argument("--peer", type=Path, metavar="DIR", help="checkout of sj-li/MS-TCN2")
    given = parser.parse_args(argv)
    repeats = given.repeats or (7 if given.full else 3)
    if given.peer:
        refuse_other_checkouts(given.peer)
    record: dict[str, Any] = {
        "format": 1,
        "repeats": repeats,
        "command": "bench-full" if given.full else "bench",
        "machine": machine(),
    }
    record |= {"date": datetime.date.today().isoformat(), "versions": versions(), "git": git_state(paths.CHECKOUT)}
    record |= {"growth": "", "scripts": {}}
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        for group in cases(Path(folder), given.peer):
            if wanted := [case for case in group if given.only in case.what]:
                rows += measured(wanted, repeats, given.peer)
                write_page(record, rows)  # what is measured stays, whatever ends the run
    if not given.only:
        record["growth"] = output("growth", *([] if given.full else GROWTH), fails=True)
        write_page(record, rows)
    for name in FULL_SCRIPTS if given.full and not given.only else ():
        record["scripts"][f"{name}.py"] = output(name, fails=True)
        write_page(record, rows)
    print(f"{paths.comparison_results() / 'benchmarks.md'}: {len(rows)} rows")
    return int(any(row.verdict == "missed" for row in rows))


def refuse_other_checkouts(peer: Path) -> None:
    """Raise `UserError` where a folder is no checkout of sj-li/MS-TCN2, or of a commit of it that Python cannot read."""
    for name in ("model.py", "batch_gen.py"):
        if not (peer / name).is_file():
            raise UserError(f"--peer {peer}: expected a checkout of sj-li/MS-TCN2, found no {name} in it")
        try:
            ast.parse(read_text(peer / name))
        except SyntaxError as error:
            raise UserError(
                f"{peer / name}: line {error.lineno} is no Python; check out another commit: faf4ae2 is one that runs"
            ) from error


def write_page(record: dict[str, Any], rows: Sequence[Row]) -> None:
    """Both files, with what there is so far."""
    write_json(paths.comparison_results() / "benchmarks.json", record | {"rows": [row.to_json() for row in rows]})
    write_text(paths.comparison_results() / "benchmarks.md", document(record, rows))


def cases(folder: Path, peer: Path | None) -> Iterator[list[Case]]:
    """The comparisons, those together that share runs, with their inputs in `folder`; on a GPU where there is one, too."""
    import torch

    from tests.benchmarks import extraction, head_training, short_clips

    video = extraction.make_clip(folder / "made_720p.mp4", 32)
    head_training.make_videos(folder, HEAD_FRAMES, HEAD_DIM)
    short = folder / "short"
    short.mkdir()
    head_training.make_videos(short, SHORT_FRAMES, HEAD_DIM)
    for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
        for model, precisions in (("Base", ("fp32", "bf16")), ("EfficientNet-Lite0", ("fp32",))):
            clip = ("extraction", "--video", str(video), "--device", device, "--one")
            yield [case for precision in precisions for case in extraction_cases(clip, model, precision, device)]
        reference = head_training.PEER if peer else "plain fp32"
        yield [
            Case(
                f"head, a step{through}, {precision}, {device}",
                loop(f"{way} {precision}", folder, device),
                reference,
                (loop(reference, folder, device),),
                limit + more,
            )
            for precision, limit in HEAD_LIMITS[device].items()
            for way, through, more in (("ours", "", 0.0), ("command", " through the command", COMMAND_MORE))
        ]
        step = loop("ours fp32", short, device, SHORT_STEPS)
        fixed = f"head, what a step costs however short, fp32, {device}"
        yield [
            Case(fixed, (*step, "--fixed"), f"a step of {SHORT_FRAMES} frames", (step,), 0.30),
            *(
                Case(
                    f"head {head}, {SHORT_FRAMES} frames, fp32, {device}",
                    loop(head, short, device),
                    DEFAULT_HEAD,
                    (step,),
                )
                for head in HEADS
                if head != DEFAULT_HEAD
            ),
        ]
    size = ("--num_videos", "60", "--num_frames", "300000")
    scoring = ("scoring", *size, "--one", "scoring")
    yield [Case("scoring with all measures", scoring, "reading the files", (("scoring", *size, "--one", "reading"),))]
    clips = folder / "clips"
    clips.mkdir()
    ways = [("short_clips", "--folder", str(short_clips.make_clips(clips)), "--one", way) for way in short_clips.WAYS]
    yield [Case("short clips, two decoders", ways[1], "one thread", (ways[0],), short_clips.LARGEST_RATIO)]


def extraction_cases(clip: tuple[str, ...], model: str, precision: str, device: str) -> Iterator[Case]:
    """An extraction of a `clip` (words of a script) against its parts and against a plain loop."""
    what, together = f"extraction, {model}, {precision}, {device}", (*clip, "together", model, precision)
    if device == "cpu":  # decoding and encoding share its cores
        parts = (*clip, "decode", model, "pyav"), (*clip, "encode", model, precision)
        yield Case(f"{what}: against its limit", together, "decode + encode", parts)
    yield Case(f"{what}: against a plain loop", together, "plain loop in fp32", ((*clip, "plain", model, "fp32"),))


def loop(name: str, folder: Path, device: str, num_steps: int = 3) -> tuple[str, ...]:
    """The words that time a loop of training on the videos of a folder."""
    words = ("head_training", "--loop", name, "--folder", str(folder), "--feature_dim", str(HEAD_DIM))
    return *words, "--steps", str(num_steps), "--device", device


def measured(group: Sequence[Case], repeats: int, peer: Path | None) -> list[Row]:
    """Each run that the cases need once a turn, so many turns; the rows are printed as soon as they are there."""
    runs = dict.fromkeys(words for case in group for words in (*case.theirs, case.ours))
    turns = [{words: seconds_of_run(words, peer) for words in runs} for _ in range(repeats)]
    rows = []
    for case in group:
        ours = tuple(turn[case.ours] for turn in turns)
        theirs = tuple(sum(turn[words] for words in case.theirs) for turn in turns)
        rows.append(Row(case.what, case.reference, ours, theirs, case.limit))
        print(rows[-1].line(), flush=True)
    return rows


def seconds_of_run(words: Sequence[str], peer: Path | None) -> float:
    """What a script says in its last line, run in a process of its own."""
    printed = forked_output(*words) if words[0] == READY else output(*words, peer=peer)
    found = json.loads(printed.splitlines()[-1])
    return float(found["seconds"] if isinstance(found, dict) else found)


def forked_output(script: str, *words: str) -> str:
    """What a script prints, in a process that need not import its libraries where the system can fork one that has."""
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    if "forkserver" in methods:
        context.set_forkserver_preload(["__main__", *LIBRARIES])
    with ProcessPoolExecutor(1, context) as pool:
        return pool.submit(printed_by, script, words).result()


def printed_by(script: str, words: Sequence[str]) -> str:
    """Call a script of this room with these words; what it prints."""
    with redirect_stdout(io.StringIO()) as printed:
        importlib.import_module(f"tests.benchmarks.{script}").main(words)
    return printed.getvalue()


def output(script: str, *words: str, peer: Path | None = None, fails: bool = False) -> str:
    """What a script of this room prints; one that `fails` may end with 1, which says that a limit was not held."""
    places = [os.environ.get("PYTHONPATH"), str(paths.CHECKOUT), str(peer.resolve()) if peer else None]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, places))}
    command = [sys.executable, str(ROOM / f"{script}.py"), *words]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode not in ((0, 1) if fails else (0,)):
        raise UserError(f"{script}.py {' '.join(words)}: exit code {done.returncode}: {done.stderr[-2000:]}")
    return done.stdout


def machine() -> dict[str, Any]:
    """The model of the processor, cores, memory, load and GPU; no name and no place of the machine."""
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    memory = psutil.virtual_memory().total / 1e9
    return {"processor": processor(), "cores": num_cores(), "memory_gb": memory, "load": os.getloadavg()[0], "gpu": gpu}


def processor() -> str:
    """The model, where the system tells; else its kind."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


if __name__ == "__main__":
    run_main(main)

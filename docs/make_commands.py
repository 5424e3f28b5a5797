"""Write docs/commands.md: the options of every command, read off its own parser.

python docs/make_commands.py            # after an option has changed
python docs/make_commands.py --stdout   # to look at
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

from common.base.files import write_text
from common.base.options import CommandParser
from common.base.runtime import run_main

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = (
    "data/import_dataset.py",
    "data/import_dataset.py annotations",
    "data/prepare_sics155.py",
    "data/make_sample.py",
    "data/loop_sample.py",
    "data/make_tasks.py",
    "data/make_releases.py",
    "data/make_masks.py",
    "generate_k_folds.py",
    "common.doctor",
    "common.audit",
    "common.weights",
    "common.new_encoder",
    "common.extract_features",
    "common.train",
    "common.run_k_folds",
    "common.probe",
    "common.segment",
    "common.predict_video",
    "common.prelabel",
    "common.label_next",
    "common.evaluation",
    "common.kfold_summary",
    "common.status",
    "common.export_to_excel",
    "compute_results.py",
    "pretrain/cataract101/import_annotations.py",
    "pretrain/cataracts1k/import_annotations.py",
    "pretrain/pack_videos.py",
    "pretrain/cluster_videos.py",
    "pretrain/ssl_pretrain_dinov3.py",
    "pretrain/ssl_pretrain_vjepa2.py",
    "pretrain/ssl_pretrain_videomae.py",
    "pretrain/finetune_lora.py",
    "pretrain/extract_ssl_features.py",
)
INTRODUCTION = """# Commands

Written by `python docs/make_commands.py` from the options themselves; every command shows the same with `--help`. An `extract_features.py`
of `models/` takes the options of `common.extract_features` but `--model`. Names of videos, models and data sets are those of the folders.

| exit code | meaning |
|---|---|
| 0 | done, or nothing was left to do |
| 1 | something is wrong, and one message says what and what to do; of several videos or models: of some |
| 2 | the command line cannot be understood |
| 3 | extraction: no video could be read; online prediction: the camera or stream ended or broke off, and what came is kept |
| 129, 130, 143 | ended by SIGHUP, SIGINT (Ctrl-C) or SIGTERM; what is finished is kept, and the same command resumes |
| 141 | what reads the output (`head` behind a pipe) has had enough |
"""


class _Seen(BaseException):
    """Carries a command's parser out of it, past every handler of errors."""


def main(argv: list[str] | None = None) -> int:
    """Entry point; with `--one COMMAND` (a process of its own for each) that command's options as JSON."""
    parser = CommandParser(None, __doc__)
    parser.groups["output"].add_argument("--stdout", action="store_true", help="print it instead of writing the file")
    parser.add_argument("--one", metavar="COMMAND", help=argparse.SUPPRESS)
    given = parser.parse_args(argv)
    if given.one:
        print(json.dumps(described(given.one)))
    elif given.stdout:
        print(commands_page(), end="")
    else:
        write_text(ROOT / "docs" / "commands.md", commands_page())
    return 0


def commands_page() -> str:
    """The whole of docs/commands.md."""
    running = [(command, _start(command)) for command in COMMANDS]
    parts = [INTRODUCTION]
    for command, process in running:
        printed, _ = process.communicate()
        if process.returncode:
            raise RuntimeError(f"{command}: its options cannot be read")
        parts.append(section(command, json.loads(printed.splitlines()[-1])))
    return "\n".join(parts)


def _start(command: str) -> subprocess.Popen[str]:
    """A process that prints a command's options; scripts of `data/` import their neighbours by name."""
    folders = [str(ROOT), str((ROOT / command.partition(" ")[0]).parent)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([*folders, os.environ.get("PYTHONPATH", "")])}
    words = [sys.executable, __file__, "--one", command]
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment, cwd=ROOT)


def described(command: str) -> dict[str, Any]:
    """The description, details and options by group of a command and its words, from the parser that it calls first."""

    def stop(parser: argparse.ArgumentParser, *_: Any) -> None:
        raise _Seen(parser)

    parser = None
    program, *words = command.split()
    with (
        mock.patch.object(sys, "argv", [program, *words]),
        mock.patch.object(argparse.ArgumentParser, "parse_args", stop),
        contextlib.redirect_stdout(sys.stderr),
    ):
        try:
            if program.endswith(".py"):
                runpy.run_path(str(ROOT / program), run_name="__main__")
            else:
                runpy.run_module(program, run_name="__main__")
        except _Seen as seen:
            parser = seen.args[0]
    groups = {}
    for group in parser._action_groups:  # argparse has no public way to its groups
        rows = [row for action in group._group_actions for row in option_rows(action)]
        if rows:
            groups[group.title] = rows
    return {"description": parser.description, "details": parser.epilog or "", "groups": groups}


def option_rows(action: argparse.Action) -> list[list[str]]:
    """An option's row `[how it is written, what it means]`; of a choice between subcommands a row each."""
    if isinstance(action, argparse._SubParsersAction):
        helps = {choice.dest: choice.help or "" for choice in action._choices_actions}
        return [
            [" ".join([name, *(part.metavar or part.dest.upper() for part in arguments_of(parser))]), helps[name]]
            for name, parser in action.choices.items()
        ]
    if isinstance(action, argparse._HelpAction) or action.help == argparse.SUPPRESS:
        return []
    value = ""
    if action.choices:
        value = "|".join(map(str, action.choices))
    elif action.nargs != 0 and not isinstance(action, argparse.BooleanOptionalAction):
        value = action.metavar or action.dest.upper()
    if action.nargs in ("+", "*"):
        value += "..."
    written = ", ".join(action.option_strings) or value
    if action.option_strings and value:
        written += f" {value}"
    meaning = (action.help or "") % (vars(action) | {"prog": ""})
    return [[written, meaning.replace(f"{ROOT}{os.sep}", "")]]


def arguments_of(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """The positional arguments of a subcommand."""
    return [action for action in parser._actions if not action.option_strings]


def section(command: str, found: dict[str, Any]) -> str:
    """A command's part of the page."""
    called = f"python {command}" if ".py" in command else f"python -m {command}"
    lines = [f"## `{called}`", "", found["description"], ""]
    if found["details"]:
        lines += ["```", found["details"], "```", ""]
    for title, rows in found["groups"].items():
        lines += [f"| {title} | |", "|---|---|"]
        lines += [
            f"| `{written.replace('|', chr(92) + '|')}` | {meaning.replace('|', chr(92) + '|')} |"
            for written, meaning in rows
        ]
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    run_main(main)

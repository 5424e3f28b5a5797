"""What a command does, counted: files read, processes started, networks built. Seconds depend on the machine, these do not."""

from __future__ import annotations

import contextlib
import multiprocessing.process
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pytest

PROCESS_EVENTS = {"subprocess.Popen", "os.system", "os.posix_spawn", "os.exec"}


@dataclass
class Work:
    """Counted in this process alone; a test that could start others says how many it expects."""

    reads: Counter[Path] = field(default_factory=Counter)
    """How often each file was opened to be read, by whatever function."""
    processes: list[str] = field(default_factory=list)
    """The first words of each that was started."""
    built: Counter[str] = field(default_factory=Counter)
    """Networks by their class: heads and encoders."""
    calls: Counter[str] = field(default_factory=Counter)
    """Of functions that `counting` was told of."""

    @property
    def processes_but_git(self) -> list[str]:
        """Those that do more than ask for the commit of a record."""
        return [words for words in self.processes if "'git'" not in words]

    def reads_of(self, folder: Path, pattern: str) -> dict[str, int]:
        """Reads of the files of a kind under a folder, all that are there: those never read with 0."""
        return {str(path.relative_to(folder)): self.reads[path] for path in sorted(folder.rglob(pattern))}


_at_work: list[Work] = []  # the innermost counts


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if not _at_work:
        return
    if event == "open":
        path, _, flags = arguments
        if isinstance(path, str | os.PathLike) and not flags & (os.O_WRONLY | os.O_RDWR):
            _at_work[-1].reads[Path(path)] += 1
    elif event in PROCESS_EVENTS:
        words = arguments[1] if event != "os.system" else arguments[0]
        _at_work[-1].processes.append(str(words))


@cache
def _listen() -> None:
    """Once: an audit hook stays for the life of the process."""
    sys.addaudithook(_hook)


@contextlib.contextmanager
def counting(**functions: tuple[object, str]) -> Iterator[Work]:
    """Count what is done inside; `functions`: further ones by the name of their count, as module and attribute."""
    from common.encoders.base import Encoder
    from common.head.networks.layers import Head, Standardised

    _listen()
    work = Work()

    def counted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            work.calls[name] += 1
            return function(*arguments, **named)

        return call

    def built(kind: type) -> Callable[..., None]:
        begin = kind.__init__

        def init(self: Any, *arguments: Any, **named: Any) -> None:
            if not isinstance(self, Standardised):  # around a head
                work.built[type(self).__name__] += 1
            begin(self, *arguments, **named)

        return init

    start = multiprocessing.process.BaseProcess.start

    def started(self: Any) -> None:
        work.processes.append(self.name)
        start(self)

    with pytest.MonkeyPatch.context() as patch:
        for kind in (Head, Encoder):
            patch.setattr(kind, "__init__", built(kind))
        patch.setattr(multiprocessing.process.BaseProcess, "start", started)
        for name, (owner, attribute) in functions.items():
            patch.setattr(owner, attribute, counted(name, getattr(owner, attribute)))
        _at_work.append(work)
        try:
            yield work
        finally:
            _at_work.pop()

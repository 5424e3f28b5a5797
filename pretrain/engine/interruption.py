"""Time limits and cancellations: a signal is noted, and the training stops at the next step, saved.

SLURM warns a job by `#SBATCH --signal=B:USR1@120`: the batch shell forwards the signal, and `srun` may deliver it too.
Either, and any repetition, is the same one request.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import time
from types import FrameType
from typing import Any

from common.base.runtime import UserError

log = logging.getLogger(__name__)

# what a signal asks for: to stop, as its number, or more; the larger wins where processes got different ones
REQUEUE = 1000
REQUESTS = {"SIGHUP": 1, "SIGTERM": 15, "SIGUSR1": REQUEUE}  # by name: Windows has SIGTERM alone
WITHOUT_SLURM = 130  # exit code of a requeue where nobody requeues
SCONTROL_SECONDS = 60
ARRIVAL_SECONDS = 2


class Interruption:
    """A context in which signals only set `request`; leaving it puts the former handlers back.

    SLURM sends its warning to every process of a job. Those that are started inside (readers of videos and their
    helpers) do not get it: they inherit that it is blocked. Here it then arrives in another thread, or waits.
    """

    def __init__(self) -> None:
        self._noted = 0
        self._former: dict[int, Any] = {}
        self._former_mask: set[Any] | None = None

    @property
    def request(self) -> int:
        """The request so far: the number of a signal, or `REQUEUE`; 0: none."""
        waiting = self._former_mask is not None and signal.SIGUSR1 in signal.sigpending()
        return max(self._noted, REQUEUE if waiting else 0)

    def __enter__(self) -> Interruption:
        for name in REQUESTS:
            number = getattr(signal, name, None)
            if number is None:
                continue
            # ignored at the start stays ignored, as under nohup; but in a job step launch_node.sh ignores for torchrun
            # what the processes that train are to heed
            is_heeded = "SLURM_STEP_ID" in os.environ or signal.getsignal(number) != signal.SIG_IGN
            if is_heeded:
                self._former[number] = signal.signal(number, self._note)
        # blocked after the handler is set: processes started from here inherit the mask and are spared, while this
        # one sees the signal as pending
        if hasattr(signal, "pthread_sigmask"):
            self._former_mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
        return self

    def __exit__(self, *_: object) -> None:
        # the mask first: a signal that waited is noted by our handler, where the former one might end the process
        if self._former_mask is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, self._former_mask)
        for number, handler in self._former.items():
            signal.signal(number, handler)

    def arrives(self, seconds: float = ARRIVAL_SECONDS) -> bool:
        """Whether a signal has come, or comes within `seconds`: it does not reach all processes at once."""
        deadline = time.monotonic() + seconds
        while not self.request and time.monotonic() < deadline:
            time.sleep(0.05)
        return self.request > 0

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._noted = max(self._noted, REQUESTS[signal.Signals(number).name])


def end_saved(request: int, progress: str, *, is_first: bool = True) -> int:
    """End a training that a signal has stopped and that is saved; returns the command's exit code.

    Under SLURM a warning of the time limit puts the job back into the queue, which counts as success. `progress` is
    how far it has come (`step 3 of 10`); of several processes the first one speaks.

    Raises `UserError` when SLURM refuses.
    """
    job = os.environ.get("SLURM_JOB_ID")
    if request == REQUEUE and job:
        if is_first:
            requeue(job)
        return 0
    log.info("stopped by a signal after %s and saved; run the same command again to resume", progress)
    return WITHOUT_SLURM if request == REQUEUE else 128 + request


def requeue(job: str) -> None:
    """Ask SLURM to run the job again, which ends it here.

    Raises `UserError` with the command when SLURM refuses.
    """
    command = ["scontrol", "requeue", job]
    log.info("the job's time is nearly up: %s", " ".join(command))
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SCONTROL_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UserError(f"everything is saved, but `{' '.join(command)}` failed ({error}); submit it again") from error
    # a job that is put back is ended at once, and this command with it
    if done.returncode not in (0, -signal.SIGTERM, -signal.SIGKILL):
        raise UserError(
            f"everything is saved, but `{' '.join(command)}` said {done.stderr.strip()!r}; submit the job again to "
            "resume"
        )

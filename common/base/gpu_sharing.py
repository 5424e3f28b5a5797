"""Several processes on one GPU at the same time, by NVIDIA's multi-process service (MPS) where the driver came with it.

Without the service a GPU serves processes in turn: five folds take five times as long as one, although one leaves most of it idle.
"""

import contextlib
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator

log = logging.getLogger(__name__)

CONTROL = "nvidia-cuda-mps-control"
PIPES, LOGS = "CUDA_MPS_PIPE_DIRECTORY", "CUDA_MPS_LOG_DIRECTORY"
WAITING_SECONDS = 30  # for the service to start, to answer, and to end
# ends with 0 where a process can work on the GPU, without a second of loading torch
PROBE = """
import ctypes
driver = ctypes.CDLL("libcuda.so.1")
raise SystemExit(bool(driver.cuInit(0) or driver.cuDevicePrimaryCtxRetain(ctypes.byref(ctypes.c_void_p()), 0)))
"""


@contextlib.contextmanager
def shared_gpu() -> Iterator[bool]:
    """Let processes that are started inside share a GPU by a service of their own; whether they do.

    Where the service runs already its settings are in the environment, and nothing is started. Where there is none, or it does not
    work, processes take turns as they do without it.
    """
    program = shutil.which(CONTROL)
    if program is None or PIPES in os.environ:
        yield PIPES in os.environ
        return
    # a short path: those of sockets may have about 100 characters
    with tempfile.TemporaryDirectory(prefix="mps") as folder:
        own = {PIPES: os.path.join(folder, "pipes"), LOGS: os.path.join(folder, "logs")}
        for each in own.values():
            os.mkdir(each)
        problem = _run([program, "-d"], own) or _run([sys.executable, "-c", PROBE], own)
        try:
            if problem:
                log.info("%s does not work here (%s): the processes take turns on the GPU", CONTROL, problem)
            else:
                os.environ |= own
            yield not problem
        finally:
            for name in own:
                os.environ.pop(name, None)
            _run([program], own, words="quit\n")


def _run(command: list[str], surroundings: dict[str, str], words: str = "") -> str | None:
    """Why a command failed, in a line; None: it did not."""
    try:
        done = subprocess.run(
            command, env=os.environ | surroundings, input=words, capture_output=True, text=True, timeout=WAITING_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    lines = (done.stderr + done.stdout).strip().splitlines()
    return None if done.returncode == 0 else lines[-1] if lines else f"exit code {done.returncode}"

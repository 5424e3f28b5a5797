"""Signals that end a command: the same message and a documented code at any moment, imports included; `nohup` is obeyed."""

import random
import signal
import time

import pytest

from tests.faults.conftest import COMMANDS, PATIENCE_SECONDS

SIGNALS = {signal.SIGHUP: 129, signal.SIGINT: 130, signal.SIGTERM: 143}
WORK = ["extract", "train_interrupted", "run_k_folds", "report", "pretrain", "finetune"]


@pytest.mark.slow
@pytest.mark.parametrize("name", WORK)
def test_a_signal_ends_a_command_with_one_message(root, name):
    """The first comes among the imports, the next later."""
    root.with_input_of(name)
    moments = random.Random(name)
    for number, code in SIGNALS.items():
        process = root.start(COMMANDS[name])
        time.sleep(moments.uniform(0.3, 2.5))
        process.send_signal(number)
        said = process.communicate(timeout=PATIENCE_SECONDS)[1]
        if (
            process.returncode == -number
        ):  # on a busy machine before the interpreter ran any of our code: nothing was begun
            assert said == ""
        elif process.returncode != 0:  # it may have ended before
            assert process.returncode == code, said
            assert "interrupted: finished files are kept" in said or "stopped by a signal" in said
        assert "Traceback" not in said
        root.assert_quiet()
        assert [path for path in root.leftovers() if ".partial" in path.name] == []


@pytest.mark.slow
def test_a_signal_that_was_ignored_at_the_start_stays_ignored(root):
    def ignore() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    process = root.start(COMMANDS["extract"], preexec_fn=ignore)
    for _ in range(5):
        time.sleep(0.3)
        process.send_signal(signal.SIGHUP)
    said = process.communicate(timeout=PATIENCE_SECONDS)[1]
    assert process.returncode == 0, said

"""Is this machine ready, and how long and how large will an extraction be?

python -m common.doctor                                     # the installation, decoders, weights
python -m common.doctor --dataset SICS155 --model Base      # and the disk and hours that its extraction needs
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from common.base import paths
from common.base.runtime import UserError, run_main
from common.checks.machine import (
    Check,
    check_cpu,
    check_cuda,
    check_decoders,
    check_plan,
    check_python,
    check_torch,
    check_weights,
)


def main(argv: list[str] | None = None) -> int:
    """Entry point of `python -m common.doctor`. Returns 1 when something that is needed is broken, else 0."""
    parser = argparse.ArgumentParser(prog="python -m common.doctor", description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", help="also plan an extraction of this data set: a name under data/ or a path")
    parser.add_argument("--model", nargs="+", help="folders under models/ (default: all; only named ones are timed)")
    parser.add_argument("--fps", type=float, help="plan with frames sampled at this rate (default: every frame)")
    parser.add_argument("--dtype", choices=("float32", "float16"), default="float32", help="(default: %(default)s)")
    parser.add_argument("--device", default="auto", help="device of the timing (default: %(default)s)")
    parser.add_argument("--no_timing", action="store_true", help="do not run encoders to estimate hours")
    given = parser.parse_args(argv)
    if given.fps is not None and not given.fps > 0:
        raise UserError(f"--fps must be greater than 0, found {given.fps}")
    models = [paths.model(name) for name in given.model] if given.model else paths.all_models()
    name_width = max(len(name) for name in ("torch, torchvision", *(f"weights {model.name}" for model in models)))
    problems = 0
    for check in _checks(models, given):
        print(check.text(name_width), flush=True)
        problems += check.state == "PROBLEM"
    print(f"\n{problems} problem{'s' * (problems != 1)}" + (": see the lines with ->" if problems else ""))
    return 1 if problems else 0


def _checks(models: list[paths.Model], given: argparse.Namespace) -> Iterator[Check]:
    yield check_python()
    torch_check = check_torch()
    yield torch_check
    if torch_check.state == "ok":
        yield from check_cuda()
    yield check_cpu()
    yield from check_decoders()
    for model in models:
        yield check_weights(model, needed=bool(given.model))
    if given.dataset:
        timed = models if given.model and not given.no_timing and torch_check.state == "ok" else []
        yield from check_plan(models, timed, given)


if __name__ == "__main__":
    run_main(main)

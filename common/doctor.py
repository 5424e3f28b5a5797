"""Is this machine ready, and how long and how large will an extraction be?

python -m common.doctor                                     # the installation, decoders, weights
python -m common.doctor --dataset SICS155 --model Base      # and the disk and hours that its extraction needs
python -m common.doctor --dataset SICS155 --model V-JEPA2-ViT-L --mode tokens --recipe published
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator
from dataclasses import fields
from typing import TYPE_CHECKING

from common.base import paths
from common.base.options import CommandParser, add_options, resolve
from common.base.runtime import counted, run_main
from common.features.config import ExtractionConfig

if TYPE_CHECKING:
    from common.checks.machine import Check

PLANNED = {"fps", "dtype", "mode", "stride", "recipe", "clip_len", "clip_spacing", "anchor"}


def main(argv: list[str] | None = None) -> int:
    """Entry point of `python -m common.doctor`. Returns 1 when something that is needed is broken, else 0."""
    parser = CommandParser("common.doctor", __doc__)
    data, machine = parser.groups["data"], parser.groups["machine"]
    data.add_argument("--dataset", help="also plan an extraction of this data set: a name under data/ or a path")
    # of an extraction, those settings on which its disk and hours depend
    add_options(parser, ExtractionConfig, skip=tuple({entry.name for entry in fields(ExtractionConfig)} - PLANNED))
    parser.groups["model"].add_argument(
        "--model", nargs="+", help="folders under models/ (default: all; only named ones are timed)"
    )
    machine.add_argument("--device", default="auto", help="device of the timing (default: %(default)s)")
    machine.add_argument("--no_timing", action="store_true", help="do not run encoders to estimate hours")
    given = parser.parse_args(argv)
    settings = {name: value for name, value in vars(given).items() if name in PLANNED}
    plan = resolve(ExtractionConfig, settings | {"dataset": given.dataset or paths.DEFAULT_DATASET})
    models = [paths.model(name) for name in given.model] if given.model else paths.all_models()
    name_width = max(len(name) for name in ("torch, torchvision", *(f"weights {model.name}" for model in models)))
    problems = 0
    for check in _checks(models, given, plan):
        print(check.text(name_width), flush=True)
        problems += check.state == "PROBLEM"
    print(f"\n{counted(problems, 'problem')}" + (": see the lines with ->" if problems else ""))
    return 1 if problems else 0


def _checks(models: list[paths.Model], given: Namespace, plan: ExtractionConfig) -> Iterator[Check]:
    from common.base.children import apart
    from common.checks import machine  # decoders and encoders: slow to import, and --help needs none

    yield machine.check_python()
    with apart() as ask:
        torch_check = machine.check_torch(ask)
        yield torch_check
        if torch_check.state == "ok":
            yield from machine.check_cuda(ask)
        yield machine.check_cpu()
        yield from machine.check_decoders()
        if given.model:
            yield from (machine.check_weights(model, ask, needed=True) for model in models)
        else:
            yield from machine.check_all_weights(models, ask)
        if given.dataset:
            timed = models if given.model and not given.no_timing and torch_check.state == "ok" else []
            dataset = paths.dataset(given.dataset)
            yield from machine.check_plan(dataset, models, timed, ask, plan=plan, device=given.device)


if __name__ == "__main__":
    run_main(main)

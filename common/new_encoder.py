"""Make a model folder for any image network of timm, of torchvision or of a transformers folder, and check that it works.

python -m common.new_encoder timm:vit_small_patch16_dinov3.lvd1689m
python -m common.new_encoder hf:facebook/dinov2-with-registers-small --name MyDinoV2
python -m common.new_encoder hf:/data/weights/some_folder --pooling mean
python -m common.new_encoder torchvision:convnext_tiny --size 288
"""

from __future__ import annotations

import argparse
import datetime
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.base import paths
from common.base.files import read_text, write_text
from common.base.options import CommandParser, Positive
from common.base.runtime import UserError, run_main
from common.encoders.config import NETWORK_KEYS, EncoderConfig, encoder_config

if TYPE_CHECKING:
    from common.encoders.base import Encoder

FAMILY_OF = {key: family for family, key in NETWORK_KEYS.items()}
NOT_LOOKED_UP = "is not looked up"  # which a test refuses: a person has to
MOST_TRIED = 150_000_000  # parameters, up to which random weights are a matter of seconds on a CPU


def main(argv: list[str] | None = None) -> int:
    """Entry point of `python -m common.new_encoder`. Returns 1 when the network does not keep the contract."""
    parser = CommandParser("common.new_encoder", __doc__)
    model = parser.groups["model"]
    model.add_argument("network", metavar="timm:NAME|hf:ID|torchvision:NAME", help="hf: a repository or a local folder")
    model.add_argument("--pooling", help="how tokens become one vector (default: the library's; DINOv3: cls)")
    model.add_argument("--size", type=int, action=Positive, help="pixels of a side (default: that of the weights)")
    model.add_argument("--weights", help="other weights for this network: a file, folder or address")
    parser.groups["output"].add_argument("--name", help="of the folder under models/ (default: the network's)")
    given = parser.parse_args(argv)
    values = _values(given)
    folder = paths.new_model(given.name or Path(values[NETWORK_KEYS[values["family"]]]).name)
    config = encoder_config(values, given.network)

    broken = _report(config)
    if broken:
        print("\n".join(f"does not keep the contract: {said}" for said in broken))
        return 1
    write_text(folder.config, _text(config, values))
    script = paths.CHECKOUT / "models" / "Base" / "extract_features.py"
    write_text(folder.root / script.name, read_text(script))
    print(f"wrote {folder.config}\nnext: python -m common.weights prefetch {folder.name}")
    print(
        f"then: python -m common.extract_features --model {folder.name} --dataset {paths.meant_datasets()[0]}"
        "    # --weights random: no download, for a try"
    )
    return 0


def _values(given: argparse.Namespace) -> dict[str, Any]:
    """What the command line says, as entries of a `config.yaml`. Raises `UserError` for another form of network."""
    key, _, name = given.network.partition(":")
    if key not in FAMILY_OF or not name:
        raise UserError(f"{given.network}: expected timm:NAME, hf:ID (or hf:FOLDER) or torchvision:NAME")
    if key == "hf" and Path(name).expanduser().is_dir():
        name = str(Path(name).expanduser().resolve())
    values: dict[str, Any] = {"family": FAMILY_OF[key], key: name}
    values |= {item: getattr(given, item) for item in ("pooling", "weights") if getattr(given, item)}
    return values | ({"preprocessing": {"size": given.size}} if given.size else {})


def _report(config: EncoderConfig) -> list[str]:
    """Say what the network is, and run the contract on it; what it breaks."""
    import torch  # after --help, which needs none

    from common.encoders.base import build_encoder
    from common.encoders.config import load_family
    from common.encoders.contract import CONTRACT, breaches
    from common.encoders.weights.load import RANDOM, WeightSource

    with torch.device("meta"):  # no memory for weights: a network of any size
        encoder: Encoder = load_family(config.family).build(config, WeightSource("none"))
    others = ", ".join(config.poolings) or "no other"
    side = config.preprocessing.size
    print(
        f"{config.title}: {encoder.feature_dim} features of {side} x {side} pixels, pooling {config.pooling} ({others})"
    )
    print(f"{encoder.num_parameters:,} parameters, weights {config.weights}, licence: {config.licence}")
    broken = breaches(encoder)
    if broken or encoder.num_parameters > MOST_TRIED:
        print(
            "checked without weights; too large to run here with random ones"
            if not broken
            else "checked without weights"
        )
        return broken
    encoder = build_encoder(config, RANDOM)
    encoder.prepare(torch.device("cpu"))
    broken = breaches(encoder)
    print(f"run with random weights: {len(CONTRACT) - len(broken)} of {len(CONTRACT)} checks of the contract hold")
    return broken


def _text(config: EncoderConfig, values: dict[str, Any]) -> str:
    """The `config.yaml`: what was asked for and the width, that heads ask for; of a folder of transformers everything.

    A repository of the hub can be asked only where there is a network, while timm and torchvision are always here.
    """
    family, key = values["family"], NETWORK_KEYS[values["family"]]
    content = {"family": family, "title": config.title, key: values[key]}
    content |= {"feature_dim": config.feature_dim, "pooling": config.pooling}
    if family == "transformers":
        rule = {name: value for name, value in asdict(config.preprocessing).items() if value is not None}
        content |= {"poolings": list(config.poolings), "weights": config.weights, "licence": config.licence}
        content |= {"weights_megabytes": config.weights_megabytes}
        values = values | {"preprocessing": rule | {"mean": list(rule["mean"]), "std": list(rule["std"])}}
    content |= {name: value for name, value in values.items() if name not in content}
    content["ledger"] = _ledger(family, values)
    origin = "its folder" if family == "transformers" else family
    comment = f"# {config.title}, made by `python -m common.new_encoder`: what is not said here is what {origin} says."
    lines = (f"{name}: {_in_one_line(value)}" for name, value in content.items())
    return "\n".join([comment, *lines, ""])


def _ledger(family: str, values: dict[str, Any]) -> dict[str, str]:
    """What is known of the weights: that they are offered without a licence's acceptance is for a person to look up."""
    is_local = "weights" in values or Path(str(values[NETWORK_KEYS[family]])).is_dir()
    source = "a local file" if is_local else f"{family} {version(family)}; that it asks for nothing {NOT_LOOKED_UP}"
    today = datetime.date.today()
    return {"state": "none" if is_local else "public", "checked": f"{today:%Y-%m}", "source": source}


def _in_one_line(value: object) -> str:
    """A value as YAML, without a line break."""
    import yaml

    return yaml.safe_dump([value], sort_keys=False, allow_unicode=True, default_flow_style=True, width=10_000).strip()[
        1:-1
    ]


if __name__ == "__main__":
    run_main(main)

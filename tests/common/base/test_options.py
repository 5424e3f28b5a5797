"""Configurations: defaults < YAML < command line, and every wrong value named."""

from dataclasses import dataclass, field, fields
from typing import Literal

import pytest

from common.base.options import CommandParser, add_options, from_mapping, option, resolve
from common.base.runtime import UserError
from common.encoders.config import read_encoder_config
from common.features.config import ExtractionConfig
from common.head.config import TrainConfig


@dataclass(frozen=True)
class Inner:
    size: int = 3


@dataclass(frozen=True)
class Config:
    rate: float = option(0.5)
    """A number."""
    count: int = option(2)
    """A whole number."""
    name: str | None = option(None)
    """A name."""
    fast: bool = option(True)
    """A switch."""
    mode: Literal["a", "b"] = option("a")
    """A choice."""
    crop: Literal["none", "center"] | None = option(None)
    """A choice that may be absent."""


@dataclass(frozen=True)
class Nested:
    title: str
    inner: Inner
    sizes: tuple[float, ...] = field(default=())


def parse(cls: type, words: list[str], config_file: str | None = None, **others):
    parser = CommandParser(None, "A trial.")
    add_options(parser, cls)
    return resolve(cls, vars(parser.parse_args(words)) | others, config_file)


def test_a_choice_that_may_be_absent_is_a_flag_with_choices(capsys):
    assert parse(Config, ["--crop", "center"]).crop == "center"
    assert parse(Config, []).crop is None
    with pytest.raises(SystemExit):
        parse(Config, ["--crop", "left"])
    assert "center" in capsys.readouterr().err


# --- mappings -----------------------------------------------------------------------------------------------------


def test_unknown_key_names_the_file_and_the_nearest_known_key():
    with pytest.raises(UserError, match=r"run\.yaml: unknown key 'coumt'; did you mean 'count'\?"):
        from_mapping(Config, {"coumt": 1}, "run.yaml")


def test_unknown_key_without_a_near_one_lists_the_known_keys():
    with pytest.raises(UserError, match="known: rate, count, name, fast, mode, crop"):
        from_mapping(Config, {"zzz": 1}, "run.yaml")


def test_unknown_key_of_a_nested_mapping_is_named_with_its_place():
    with pytest.raises(UserError, match=r"run\.yaml, inner: unknown key 'sise'; did you mean 'size'"):
        from_mapping(Nested, {"title": "t", "inner": {"sise": 1}}, "run.yaml")


def test_missing_key_is_named():
    with pytest.raises(UserError, match=r"run\.yaml: missing key 'title'"):
        from_mapping(Nested, {"inner": {}}, "run.yaml")


def test_nested_values_become_dataclasses_and_tuples():
    nested = from_mapping(Nested, {"title": "t", "inner": {"size": 5}, "sizes": [1, 2.5]}, "run.yaml")
    assert nested == Nested("t", Inner(5), (1.0, 2.5))


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("count", "2", "int"),
        ("count", 2.5, "int"),
        ("count", True, "int"),
        ("rate", "fast", "float"),
        ("rate", True, "float"),
        ("fast", 1, "bool"),
        ("fast", "yes", "bool"),
        ("name", 3, "str"),
        ("mode", "c", "one of a, b"),
        ("count", None, "int"),
    ],
)
def test_value_of_another_type_is_refused_with_file_key_and_value(key, value, expected):
    with pytest.raises(UserError) as error:
        from_mapping(Config, {key: value}, "run.yaml")
    assert f"run.yaml, {key}: expected {expected}, found {value!r}" in str(error.value)
    assert ("in quotes" in str(error.value)) == (expected == "str")


def test_whole_number_is_a_float_where_one_is_meant():
    rate = from_mapping(Config, {"rate": 2}, "run.yaml").rate
    assert (rate, type(rate)) == (2.0, float)


def test_none_is_allowed_where_the_type_says_so():
    assert from_mapping(Config, {"name": None}, "run.yaml").name is None


# --- precedence ---------------------------------------------------------------------------------------------------


def test_without_anything_the_defaults_hold():
    assert parse(Config, []) == Config()


def test_yaml_beats_defaults(yaml_file):
    assert parse(Config, [], yaml_file("count: 7\nrate: 0.25")) == Config(count=7, rate=0.25)


def test_command_line_beats_yaml(yaml_file):
    assert parse(Config, ["--count", "9"], yaml_file("count: 7\nrate: 0.25")) == Config(count=9, rate=0.25)


def test_a_default_given_on_the_command_line_beats_yaml(yaml_file):
    assert parse(Config, ["--count", "2"], yaml_file("count: 7")).count == 2


def test_unknown_yaml_key_names_the_file(yaml_file):
    with pytest.raises(UserError, match=r"run\.yaml: unknown key 'learning_rate'"):
        parse(TrainConfig, [], yaml_file("learning_rate: 1.0"))


def test_yaml_value_of_another_type_names_the_file_even_if_the_command_line_gives_one(yaml_file):
    with pytest.raises(UserError, match=r"run\.yaml, count: expected int, found 'seven'"):
        parse(Config, ["--count", "9"], yaml_file("count: seven"))


def test_flags_of_another_command_are_left_out():
    assert parse(Config, ["--count", "9"], device="cpu", force=True) == Config(count=9)


# --- flags --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("words", "value"), [([], True), (["--fast"], True), (["--no-fast"], False)])
def test_switches_can_be_turned_on_and_off(words, value):
    assert parse(Config, words).fast is value


def test_switch_off_beats_yaml_on(yaml_file):
    assert parse(Config, ["--no-fast"], yaml_file("fast: true")).fast is False


def test_optional_text_is_read_from_the_command_line():
    assert parse(Config, ["--name", "x"]).name == "x"


@pytest.mark.parametrize("words", [["--mode", "c"], ["--count", "many"], ["--count", "1.5"], ["--rate", "x"]])
def test_wrong_flag_ends_with_the_usage(words, capsys):
    with pytest.raises(SystemExit) as error:
        parse(Config, words)
    assert error.value.code == 2
    assert words[0] in capsys.readouterr().err


@pytest.mark.parametrize("cls", [TrainConfig, ExtractionConfig])
def test_help_shows_every_option_and_its_default(cls, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")  # no line breaks in the help
    with pytest.raises(SystemExit):
        parse(cls, ["--help"])
    text = capsys.readouterr().out
    for entry in fields(cls):
        assert f"--{entry.name}" in text
    assert "(default: SICS155)" in text


def test_skipped_fields_have_no_flag():
    parser = CommandParser(None, "A trial.")
    add_options(parser, TrainConfig, skip=("lr",))
    with pytest.raises(SystemExit):
        parser.parse_args(["--lr", "1"])


# --- the head's configuration -------------------------------------------------------------------------------------


def test_train_defaults_are_the_studys():
    config = TrainConfig()
    assert (config.num_layers_PG, config.num_layers_R, config.num_R, config.num_f_maps) == (13, 13, 4, 64)
    assert (config.num_epochs, config.lr, config.bz, config.loss_mse, config.seed) == (100, 5e-4, 1, 0.35, 42)
    assert (config.adaptive_mse, config.window_mse, config.loss_focal, config.causal) == (True, 30, 0.0, False)


def test_the_studys_command_line_is_read():
    words = (
        "--dataset SICS155 --split 1 --features_dim 2048 --num_epochs 100 --num_layers_PG 13 --num_layers_R 13 "
        "--num_R 4 --loss_mse 0.35 --adaptive_mse --bz 1 --lr 5e-4 --num_f_maps 64 --loss_focal 2 "
        "--class_weights inverse --window_mse 30 --sample_rate 1 --causal --seed 7 --run mine"
    )
    config = parse(TrainConfig, words.split())
    assert (config.features_dim, config.lr, config.loss_focal, config.causal) == (2048, 5e-4, 2.0, True)
    assert (config.split, config.class_weights, config.run) == ("1", "inverse", "mine")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, 0) for name in ("num_epochs", "num_layers_PG", "num_layers_R", "num_f_maps", "bz", "sample_rate")),
        ("lr", 0.0),
        ("lr", -1.0),
        ("lr", float("nan")),
        *(("train_fraction", value) for value in (0.0, -0.5, 1.001, float("nan"))),
        *((name, -1) for name in ("num_R", "length_tolerance")),
        ("loss_mse", -0.1),
        ("loss_mse", float("nan")),
        ("loss_focal", -2.0),
        ("window_mse", 1),
        ("split", "0"),
        ("split", "-1"),
        ("split", "1.5"),
        ("split", "train"),
        ("split", ""),
    ],
)
def test_impossible_training_values_are_refused_by_name(name, value):
    with pytest.raises(UserError, match=f"^{name} must"):
        TrainConfig(**{name: value})


@pytest.mark.parametrize("changes", [{"split": "val"}, {"split": "12"}, {"num_R": 0}, {"loss_mse": 0.0}])
def test_values_at_the_edge_are_allowed(changes):
    config = TrainConfig(**changes)
    assert {name: getattr(config, name) for name in changes} == changes


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({}, None),
        ({"split": "3", "num_epochs": 5, "lr": 0.1}, None),
        ({"seed": 42}, None),
        ({"seed": 7}, "seed7"),
        ({"causal": True}, "causal"),
        ({"variant": "SSL"}, "SSL"),
        ({"train_fraction": 0.25}, "fraction0.25"),
        ({"train_fraction": 1.0}, None),
        ({"variant": "SSL", "causal": True, "train_fraction": 0.1, "seed": 7}, "SSL-causal-fraction0.1-seed7"),
        ({"run": "mine"}, "mine"),
        ({"run": "mine", "seed": 7, "causal": True}, "mine"),
    ],
)
def test_run_name_tells_what_differs_from_the_defaults(changes, name):
    assert TrainConfig(**changes).run_name == name


@pytest.mark.parametrize("changes", [{"fps": 0.0}, {"fps": -5.0}, {"batch_size": 0}, {"batch_size": -1}])
def test_impossible_extraction_values_are_refused_by_name(changes):
    with pytest.raises(UserError, match=f"^{next(iter(changes))} must be greater than 0"):
        ExtractionConfig(**changes)


def test_unknown_decoder_ends_with_the_choices(capsys):
    with pytest.raises(SystemExit):
        parse(ExtractionConfig, ["--decoder", "decord2"])
    assert "choose from" in capsys.readouterr().err


# --- a model's config.yaml ----------------------------------------------------------------------------------------


def test_every_model_folders_config_is_read(checkout):
    configs = {path.parent.name: read_encoder_config(path) for path in checkout.glob("models/*/config.yaml")}
    assert {"Base", "ColorHistogram", "EfficientNet-Lite0"} <= configs.keys()
    assert configs["Base"].feature_dim == 2048
    assert configs["Base"].allowed_unexpected == ("fc.",)
    assert configs["EfficientNet-Lite0"].preprocessing.size == 224
    assert all(config.title and config.licence and config.pooling for config in configs.values())


def test_encoder_config_with_a_misspelt_preprocessing_key_is_refused(checkout, tmp_path):
    text = (checkout / "models" / "Base" / "config.yaml").read_text().replace("  size: 224", "  sizes: 224")
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=r"config\.yaml, preprocessing: unknown key 'sizes'; did you mean 'size'"):
        read_encoder_config(path)


def test_preprocessing_in_a_sidecar_is_plain_json(checkout):
    record = read_encoder_config(checkout / "models" / "Base" / "config.yaml").preprocessing.to_json()
    assert record["mean"] == [0.485, 0.456, 0.406]
    assert record["size"] == 224
    assert "antialiased" in record["resize"]


def test_yaml_may_write_a_rate_as_5e_minus_4(tmp_path):
    path = tmp_path / "head.yaml"
    path.write_text("lr: 5e-4\n")  # text to PyYAML, which wants 5.0e-4
    assert resolve(TrainConfig, {}, str(path)).lr == 5e-4


def test_a_part_of_a_flag_is_not_taken_for_it(capsys):
    parser = CommandParser("common.x", "Does something.")
    parser.groups["data"].add_argument("--splits")
    with pytest.raises(SystemExit):
        parser.parse_args(["--split", "2"])
    assert "unrecognized arguments: --split 2" in capsys.readouterr().err

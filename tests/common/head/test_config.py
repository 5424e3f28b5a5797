"""Settings of a training: when two configurations are the same."""

from dataclasses import asdict

from common.head.config import TrainConfig, config_differences


def test_a_record_from_before_a_setting_existed_was_made_with_its_default():
    record = asdict(TrainConfig(num_epochs=5))
    older = {key: value for key, value in record.items() if key != "train_fraction"}
    assert config_differences(record, older) == []
    assert config_differences(older, record) == []
    assert config_differences(asdict(TrainConfig(num_epochs=5, train_fraction=0.5)), older) == [
        "train_fraction: 1.0 -> 0.5"
    ]


def test_differences_name_the_setting_and_both_values():
    theirs, ours = asdict(TrainConfig(lr=0.1, seed=7)), asdict(TrainConfig(lr=0.1, num_R=2))
    assert config_differences(ours, theirs) == ["num_R: 4 -> 2", "seed: 7 -> 42"]


def test_a_setting_that_is_gone_is_a_difference():
    record = asdict(TrainConfig())
    assert config_differences(record, record | {"momentum": 0.9}) == ["momentum: 0.9 -> None"]

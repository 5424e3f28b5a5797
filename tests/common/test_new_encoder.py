"""A model folder for any network: written when it keeps the contract, readable at once, refused in one sentence."""

import pytest
import torch
import transformers

from common import new_encoder
from common.base import paths
from common.base.runtime import UserError
from common.encoders.base import build_encoder
from common.encoders.config import read_encoder_config
from common.encoders.contract import breaches

TINY = {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 3}
VISION = TINY | {"image_size": 64, "patch_size": 16}


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    """An empty repository root."""
    monkeypatch.setenv("SICS155_ROOT", str(tmp_path / "root"))
    (tmp_path / "root" / "models").mkdir(parents=True)
    return tmp_path / "root"


@pytest.mark.parametrize(
    ("network", "feature_dim", "pooling", "first_lines"),
    [
        (
            "timm:test_vit.r160_in1k",
            64,
            "cls",
            ["family: timm", "title: test_vit.r160_in1k", "timm: test_vit.r160_in1k"],
        ),
        ("timm:test_convnext.r160_in1k", 64, "average", ["family: timm"]),
        ("timm:mobilenetv3_small_050.lamb_in1k", 1024, "average", ["family: timm"]),
        ("torchvision:mobilenet_v3_small", 1024, "average", ["family: torchvision"]),
    ],
)
def test_a_network_by_its_name_is_a_short_config(root, capsys, network, feature_dim, pooling, first_lines):
    assert new_encoder.main([network]) == 0
    name = network.partition(":")[2]
    lines = (root / "models" / name / "config.yaml").read_text().splitlines()
    assert lines[0].startswith("# ")
    assert len(lines) == 7
    assert lines[-1].startswith("ledger: {state: public, checked: 20")
    assert lines[1 : 1 + len(first_lines)] == first_lines
    config = read_encoder_config(paths.model(name).config)
    assert (config.feature_dim, config.pooling) == (feature_dim, pooling)
    said = capsys.readouterr().out
    assert "6 of 6 checks of the contract hold" in said
    assert f"python -m common.extract_features --model {name} --dataset SICS155" in said


def test_size_pooling_name_and_weights_may_be_chosen(root):
    words = ["timm:test_vit.r160_in1k", "--size", "96", "--pooling", "mean", "--name", "Mine", "--weights", "/w.pth"]
    assert new_encoder.main(words) == 0
    config = read_encoder_config(paths.model("Mine").config)
    assert (config.preprocessing.size, config.pooling, config.weights) == (96, "mean", "/w.pth")
    extractor = paths.CHECKOUT / "models" / "Base" / "extract_features.py"
    assert (root / "models" / "Mine" / "extract_features.py").read_text() == extractor.read_text()


def clip(folder) -> None:
    text = TINY | {"vocab_size": 50, "bos_token_id": 1, "eos_token_id": 2}
    transformers.CLIPModel(transformers.CLIPConfig(text_config=text, vision_config=VISION)).save_pretrained(folder)


def dinov2(folder) -> None:
    sizes = {key: value for key, value in VISION.items() if key != "intermediate_size"}
    config = transformers.Dinov2WithRegistersConfig(**sizes | {"image_size": 56, "patch_size": 14})
    transformers.Dinov2WithRegistersModel(config).save_pretrained(folder)
    transformers.BitImageProcessor(
        size={"shortest_edge": 64}, crop_size={"height": 56, "width": 56}, image_mean=[0.1] * 3
    ).save_pretrained(folder)


@pytest.mark.parametrize(("save", "pooling", "size"), [(clip, "pooler", 64), (dinov2, "cls", 56)])
def test_a_folder_of_transformers_that_nobody_prepared(tmp_path, save, pooling, size):
    save(tmp_path / "some")
    assert new_encoder.main([f"hf:{tmp_path / 'some'}"]) == 0
    config = read_encoder_config(paths.model("some").config)
    assert (config.pooling, config.preprocessing.size, config.feature_dim) == (pooling, size, 48)
    encoder = build_encoder(config)
    encoder.prepare(torch.device("cpu"))
    assert breaches(encoder) == []
    assert encoder.weights.sha256


def test_the_rule_of_the_pictures_is_the_folders_own(tmp_path):
    dinov2(tmp_path / "some")
    new_encoder.main([f"hf:{tmp_path / 'some'}"])
    rule = read_encoder_config(paths.model("some").config).preprocessing
    assert (rule.short_side, rule.interpolation, rule.mean) == (64, "bicubic", (0.1, 0.1, 0.1))


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["resnet50"], "expected timm:NAME, hf:ID"),
        (["timm:"], "expected timm:NAME"),
        (["timm:resnet51"], "has no network 'resnet51'; near: "),
        (["torchvision:resnet51"], "torchvision has no image network 'resnet51'"),
        (["timm:test_vit.r160_in1k", "--name", "../x"], "a name holds letters, digits"),
        (["timm:test_vit.r160_in1k", "--pooling", "max"], "pooling 'max' is unknown; known: cls, mean"),
        (["timm:test_vit.r160_in1k", "--size", "100"], "size 100 is not a multiple of 16 pixels"),
    ],
)
def test_what_cannot_be_is_said_and_nothing_is_written(root, words, complaint):
    with pytest.raises(UserError, match=complaint):
        new_encoder.main(words)
    assert list((root / "models").iterdir()) == []


def test_a_folder_that_is_there_is_never_overwritten(root):
    (root / "models" / "Mine").mkdir()
    with pytest.raises(UserError, match="Mine exists already"):
        new_encoder.main(["timm:test_vit.r160_in1k", "--name", "Mine"])


def test_code_of_a_repository_is_never_run(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "surgformer", "auto_map": {"AutoModel": "evil.Model"}}')
    (tmp_path / "evil.py").write_text("raise SystemExit('run')")
    with pytest.raises(UserError, match=r"found 'surgformer'.* code of its own \(auto_map\), which is never run"):
        new_encoder.main([f"hf:{tmp_path}"])


def test_a_repository_of_timm_is_sent_to_timm(tmp_path):
    (tmp_path / "config.json").write_text('{"architecture": "vit_tiny", "pretrained_cfg": {"tag": "x"}}')
    with pytest.raises(UserError, match=r"this is a network of timm: write family: timm with timm: vit_tiny\.x"):
        new_encoder.main([f"hf:{tmp_path}"])


def test_a_network_that_breaks_the_contract_gets_no_folder(root, monkeypatch, capsys):
    monkeypatch.setattr("common.encoders.contract.CONTRACT", (lambda encoder: "features depend on the batch",))
    assert new_encoder.main(["timm:test_vit.r160_in1k"]) == 1
    assert "does not keep the contract: features depend on the batch" in capsys.readouterr().out
    assert list((root / "models").iterdir()) == []

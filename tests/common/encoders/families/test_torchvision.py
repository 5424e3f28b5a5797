"""ResNet: the last stage's average, without the classifier; what any frozen network keeps to."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from common.base.runtime import UserError
from common.encoders.base import Encoder, build_encoder
from common.encoders.families.torchvision import torchvision_facts


@pytest.fixture(scope="module")
def small_resnet(model_config, ready) -> Encoder:
    settings = replace(model_config("Base", size=64), architecture="resnet18", feature_dim=512)
    return ready(settings, "random")


def test_resnet50_of_the_base_folder_gives_2048_features(model_config, ready, frames):
    encoder = ready(model_config("Base", size=32), "random")
    assert encoder.encode(frames(2, 32)).shape == (2, 2048)
    assert encoder.num_parameters == 25_557_032 - (2048 * 1000 + 1000)  # published size without its classifier


def test_resnet_feature_is_the_global_average_of_the_last_stage(small_resnet, frames):
    network, pixels = small_resnet.network, frames(2, 64)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    x = (pixels / 255 - mean) / std
    with torch.no_grad():
        x = network.maxpool(F.relu(network.bn1(network.conv1(x))))
        for stage in (network.layer1, network.layer2, network.layer3, network.layer4):
            x = stage(x)
    assert torch.allclose(small_resnet.encode(pixels), x.mean(dim=(2, 3)), rtol=1e-4, atol=1e-5)


def test_classifier_in_the_weights_is_left_out(model_config, tmp_path):
    import torchvision

    torch.manual_seed(0)
    whole = torchvision.models.resnet18()
    torch.save(whole.state_dict(), tmp_path / "w.pth")
    settings = replace(model_config("Base"), architecture="resnet18", feature_dim=512)
    encoder = build_encoder(settings, str(tmp_path / "w.pth"))
    ours = encoder.network.state_dict()
    assert ours.keys() == {key for key in whole.state_dict() if not key.startswith("fc.")}
    assert all(torch.equal(value, whole.state_dict()[key]) for key, value in ours.items())


def test_encoding_changes_nothing_in_the_network(small_resnet, frames):
    before = {name: value.clone() for name, value in small_resnet.network.state_dict().items()}
    small_resnet.encode(frames(4, 64))
    assert all(torch.equal(value, before[name]) for name, value in small_resnet.network.state_dict().items())


def test_random_weights_say_so_and_are_the_same_at_every_build(ready, small_resnet, frames):
    assert small_resnet.weights.to_json() == {"source": "random", "file": None, "sha256": None}
    torch.manual_seed(123)
    again = ready(small_resnet.config, "random")
    assert torch.equal(again.encode(frames(2, 64)), small_resnet.encode(frames(2, 64)))


# --- surgical files, in the layouts that their authors read -------------------------------------------------------


def body(config, ready) -> dict[str, torch.Tensor]:
    """Weights of a small network that are not those of random ones."""
    state = ready(config, "random").network.state_dict()
    return {key: value + 1 for key, value in state.items()}


def test_selfsupsurg_is_read_from_the_nesting_of_vissl(model_config, ready, tmp_path):
    published = model_config("SelfSupSurg-ResNet50", size=64)
    config = replace(published, architecture="resnet18", feature_dim=512)
    own = body(config, ready)
    trunk = {f"_feature_blocks.{key}": value for key, value in own.items()}
    model = {"trunk": trunk, "heads": {"0.clf.0.weight": torch.zeros(2, 512)}}
    content = {"classy_state_dict": {"base_model": {"model": model}, "optimizer": {}}, "iteration": 3}
    torch.save(content, tmp_path / "w.torch")
    encoder = ready(config, str(tmp_path / "w.torch"))
    given = encoder.network.state_dict()
    assert all(torch.equal(given[key], value) for key, value in own.items())
    assert encoder.weights.network == published.network == "classy_state_dict.base_model.model.trunk"


def test_lemonfm_keeps_the_norm_before_the_classifier(model_config, ready, tmp_path):
    config = replace(model_config("LemonFM", size=64), architecture="convnext_tiny", feature_dim=768)
    own = body(config, ready)
    assert "classifier.0.weight" in own
    teacher = {f"backbone.{key}": value for key, value in own.items()} | {"head.mlp.0.weight": torch.zeros(2, 768)}
    torch.save({"teacher": teacher, "student": {}}, tmp_path / "w.pth")
    encoder = ready(config, str(tmp_path / "w.pth"))
    assert torch.equal(encoder.network.state_dict()["classifier.0.weight"], own["classifier.0.weight"])


@pytest.mark.parametrize(
    ("name", "width"), [("mobilenet_v3_small", 1024), ("swin_t", 768), ("squeezenet1_0", None), ("googlenet", None)]
)
def test_the_last_linear_layer_is_what_is_left_out(name, width):
    if width:
        assert torchvision_facts(name)["feature_dim"] == width
    else:
        with pytest.raises(UserError, match=r"does not end in a linear layer|no image network 'googlenet' to use here"):
            torchvision_facts(name)

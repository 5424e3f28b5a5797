"""The decoder of segmentation networks: the authors' numbers and names, sizes, what each part adds."""

import json

import numpy as np
import pytest
import torch

from common.head.networks.fpn import FPN

CHANNELS = (64, 128, 320, 512)


@pytest.fixture(scope="module")
def reference(reference_data) -> tuple[dict, dict[str, np.ndarray]]:
    folder = reference_data / "golden"
    with np.load(folder / "segmentation_reference.npz") as arrays:
        return json.loads((folder / "segmentation_reference.json").read_text()), dict(arrays)


@pytest.mark.parametrize("name", ["decoder_cat", "decoder_add", "decoder_cat_pvt"])
def test_scores_are_those_of_the_authors_code(name, reference):
    content, arrays = reference
    case = content["cases"][name]
    decoder = FPN(
        case["encoder_channels"],
        case["num_classes"],
        pyramid_channels=case["pyramid_channels"],
        segmentation_channels=case["segmentation_channels"],
        merge=case["merge_policy"],
    )
    start = f"{name}/state/"
    decoder.load_state_dict(
        {key.removeprefix(start): torch.from_numpy(value) for key, value in arrays.items() if key.startswith(start)}
    )
    maps = [torch.from_numpy(arrays[f"{name}/input/{place}"]).double() for place in range(4)]
    with torch.no_grad():
        scores = decoder.double()(maps)
    assert (scores - torch.from_numpy(arrays[f"{name}/output"])).abs().max().item() < 1e-9


@pytest.mark.parametrize("folder", ["MetaFormerFPN", "ConvNextFPN", "PVTV2FPN"])
def test_parameters_at_full_size_have_the_authors_names_and_shapes(folder, reference):
    case = reference[0]["full_size"][folder]
    channels = (96, 192, 384, 768) if folder == "ConvNextFPN" else CHANNELS
    decoder = FPN(channels, case["num_classes"])
    own = {f"FPN.{name}": list(value.shape) for name, value in decoder.named_parameters()}
    assert own == case["decoder_parameters"]
    assert sum(value.numel() for value in decoder.parameters()) == case["decoder"]


def test_the_parameters_of_twelve_classes_without_the_reference_data():
    decoder = FPN(CHANNELS, 12)
    assert sum(value.numel() for value in decoder.parameters()) == 1_942_284
    assert len(decoder.state_dict()) == 31


@pytest.mark.parametrize("sides", [(32, 32), (64, 96), (224, 448)])
def test_scores_have_the_size_of_the_picture(sides):
    decoder = FPN((4, 6, 8, 10), 3, pyramid_channels=8, segmentation_channels=32)
    maps = [torch.zeros(2, channels, *(side // stride for side in sides)) for channels, stride in zip((4, 6, 8, 10), (4, 8, 16, 32), strict=True)]  # fmt: skip
    assert decoder(maps).shape == (2, 3, *sides)


def test_every_map_decides():
    """A change of any of the four maps changes the scores: no branch is left out."""
    decoder = FPN((4, 6, 8, 10), 2, pyramid_channels=8, segmentation_channels=32)
    source = torch.Generator().manual_seed(0)
    maps = [torch.randn(1, channels, 64 // stride, 64 // stride, generator=source) for channels, stride in zip((4, 6, 8, 10), (4, 8, 16, 32), strict=True)]  # fmt: skip
    with torch.no_grad():
        scores = decoder(maps)
        for place in range(4):
            changed = [value + (place == other) for other, value in enumerate(maps)]
            assert not torch.allclose(decoder(changed), scores)

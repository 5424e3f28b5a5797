"""Where weights came from, in words for a column and for a sentence."""

import pytest

from common.reports.run_records import run_row, short_sources, weights_source
from tests.common.reports.rows import row


def features_with(source, adapter=None, **more):
    weights = {"source": source, "sha256": "ab" * 32} | more
    if adapter:
        weights["adapter"] = {"source": adapter, "sha256": "cd" * 32}
    return {"identity": {"weights": weights}, "random_weights": False, "num_parameters": None}


def shorts(*sources):
    """The short source of each row, a source being `(weights, adapter)` or weights alone."""
    given = [source if isinstance(source, tuple) else (source,) for source in sources]
    rows = [row(f"E{place}", [0.9], features=features_with(*each)) for place, each in enumerate(given)]
    return list(short_sources(rows).values())


@pytest.mark.parametrize(
    ("source", "short"),
    [
        ("package:efficientnet/models/lite0.pth", "lite0.pth"),
        ("https://example.org/a/b.pth#sha256=00", "b.pth#sha256=00"),
        ("hub:facebook/dinov2-base", "facebook/dinov2-base"),
        ("torchvision:ResNet50_Weights.IMAGENET1K_V2", "ResNet50_Weights.IMAGENET1K_V2"),
        ("/disk/ssl/dinov3-vitb16/export", "dinov3-vitb16/export"),
        (r"C:\disk\weights.pth", "weights.pth"),
        ("random", "random"),
        ("none", "none"),
    ],
)
def test_a_file_is_called_by_its_name_and_a_folder_by_the_one_above_it_too(source, short):
    assert shorts(source) == [short]


def test_adapters_of_one_name_are_told_apart():
    made = [(f"/d/ssl/{name}/export", f"/d/checkpoints/{name}/best_lora") for name in ("vjepa2-l", "dinov3-b")]
    assert shorts(*made) == ["vjepa2-l/best_lora", "dinov3-b/best_lora"]


def test_files_of_one_name_have_as_much_of_their_path_as_tells_them_apart():
    assert shorts("/a/x/run/final.pt", "/a/y/run/final.pt", "/a/other.pt") == [
        "x/run/final.pt",
        "y/run/final.pt",
        "other.pt",
    ]
    assert shorts("/a/final.pt", "/a/final.pt") == ["final.pt", "final.pt"]  # the same weights
    assert shorts("final.pt", "/a/final.pt") == ["final.pt", "a/final.pt"]


def test_recorded_steps_back_are_not_shown():
    adapter = "/d/checkpoints/vjepa2-l/best_lora"
    result = row("Base", [0.9], features=features_with(f"{adapter}/../../ssl/vjepa2/export", adapter))
    assert weights_source(result) == f"/d/checkpoints/ssl/vjepa2/export with the adapter {adapter}"
    assert run_row(result, result.splits[0])["Weights"] == "/d/checkpoints/ssl/vjepa2/export"

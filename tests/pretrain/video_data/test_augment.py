"""Random views: sizes, rectangles, how often each distortion happens, and the same views for the same generator."""

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import binomtest, ks_2samp
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms.v2 import functional as T

from common.base.runtime import generator
from pretrain.video_data.augment import (
    MULTI_SCALES,
    QUARTERS,
    Box,
    LabelledView,
    MultiCrop,
    MultiScaleCrop,
    VideoCrop,
    blurred,
    crop_clip,
    distort,
    draw_box,
    draw_multi_scale_box,
    hue_shifted,
    labelled_view,
    multi_crop,
    multi_scale_crop,
    resized_crop,
)

NUM_DRAWS = 400
ALMOST_NEVER = 1e-6  # probability that a right implementation fails a test by chance
NOTHING = MultiCrop(
    global_size=16, local_size=8, flip_chance=0, jitter_chance=0, grey_chance=0, solarise_chance=0, blur="reference"
)
WHOLE = {"global_scale": (1.0, 1.0), "local_scale": (1.0, 1.0), "ratio": (1.0, 1.0)}


def noise(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator("noise"))


def colourful() -> torch.Tensor:
    """A picture `(3, 32, 32)` that every distortion changes: no symmetry, no grey, light and dark."""
    return noise(3, 32, 32)


# --- rectangles ---------------------------------------------------------------------------------------------------


def boxes(scale, ratio, count=2000, size=(720, 1280)) -> list[Box]:
    random = generator("boxes")
    return [draw_box(*size, scale, ratio, random=random) for _ in range(count)]


@pytest.mark.parametrize("scale", [(0.32, 1.0), (0.05, 0.32), (0.3, 1.0)])
def test_rectangles_lie_in_the_picture_with_areas_and_ratios_in_range(scale):
    for box in boxes(scale, (3 / 4, 4 / 3)):
        assert 0 <= box.top <= 720 - box.height
        assert 0 <= box.left <= 1280 - box.width
        assert scale[0] - 0.01 <= box.height * box.width / (720 * 1280) <= scale[1] + 0.01
        assert 0.74 <= box.width / box.height <= 1.35


@pytest.mark.parametrize("scale", [(0.32, 1.0), (0.05, 0.32)])
def test_rectangles_are_distributed_as_those_of_torchvision(scale):
    ours = np.array(boxes(scale, (3 / 4, 4 / 3)), float)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        picture = torch.empty(3, 720, 1280)
        theirs = np.array([RandomResizedCrop.get_params(picture, [*scale], [3 / 4, 4 / 3]) for _ in range(2000)], float)
    for measure in (
        lambda found: found[:, 2] * found[:, 3],
        lambda found: found[:, 3] / found[:, 2],
        lambda found: found[:, 0],
        lambda found: found[:, 1],
    ):
        assert ks_2samp(measure(ours), measure(theirs)).pvalue > ALMOST_NEVER


@pytest.mark.parametrize("size", [(100, 1000), (1000, 100), (333, 1000), (57, 57)])
def test_where_nothing_fits_the_rectangle_is_in_the_middle(size):
    scale, ratio = (4.0, 5.0), (3 / 4, 4 / 3)  # larger than the picture
    theirs = RandomResizedCrop.get_params(torch.empty(3, *size), [*scale], [*ratio])
    assert draw_box(*size, scale, ratio, random=generator(0)) == theirs


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [24, 90])
def test_resized_rectangle_equals_that_of_torchvision(mode, size):
    image, box = noise(3, 72, 128), Box(5, 17, 40, 60)
    theirs = T.resized_crop(image, *box, [size, size], interpolation=T.InterpolationMode(mode), antialias=True)
    assert (resized_crop(image, box, size, flipped=False, mode=mode).int() - theirs.int()).abs().max() <= 1
    assert torch.equal(
        resized_crop(image, box, size, flipped=True, mode=mode),
        resized_crop(image, box, size, flipped=False, mode=mode).flip(-1),
    )


def test_layout_in_memory_does_not_count():
    """Decoded frames have channels last."""
    image, box = noise(3, 72, 128), Box(5, 17, 40, 60)
    channels_last = image.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    first, second = (resized_crop(view, box, 24, flipped=False, mode="bicubic") for view in (image, channels_last))
    assert (first.int() - second.int()).abs().max() <= 1


# --- multi-crop ---------------------------------------------------------------------------------------------------


def test_defaults_are_the_recipe_of_dinov3_vit_l():
    rule = MultiCrop()
    assert (rule.global_size, rule.local_size, rule.num_local) == (224, 96, 8)
    assert (rule.global_scale, rule.local_scale) == ((0.32, 1.0), (0.05, 0.32))
    assert (rule.flip_chance, rule.jitter_chance, rule.grey_chance, rule.solarise_chance) == (0.5, 0.8, 0.2, 0.2)
    assert (rule.brightness, rule.contrast, rule.saturation, rule.hue) == (0.4, 0.4, 0.2, 0.1)
    assert rule.blur == "reference"  # what the published weights were made with
    assert (rule.blur_kernel, rule.blur_sigma, rule.solarise_threshold) == (9, (0.1, 2.0), 128)


def test_counts_sizes_and_kinds_of_crops():
    views = multi_crop(noise(3, 72, 128), MultiCrop(num_local=5), generator(0))
    assert {name: tuple(crops.shape) for name, crops in views.items()} == {
        "global_crops": (2, 3, 224, 224),
        "local_crops": (5, 3, 96, 96),
    }
    assert all(crops.dtype == torch.uint8 for crops in views.values())


def test_without_local_crops_there_are_none():
    assert list(multi_crop(noise(3, 72, 128), MultiCrop(num_local=0), generator(0))) == ["global_crops"]


def test_the_same_generator_gives_the_same_views():
    image = noise(3, 72, 128)
    first, same, other = (multi_crop(image, MultiCrop(gram_size=48), generator(seed)) for seed in (1, 1, 2))
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in first)


def changed_share(rule: MultiCrop) -> list[float]:
    """How often the first and second global crop, and local ones, differ from the plain picture."""
    image = colourful()
    rule = replace(rule, num_local=4, **WHOLE)
    whole = Box(0, 0, 32, 32)
    plain_global = resized_crop(image, whole, 16, flipped=False, mode="bicubic")
    plain_local = resized_crop(image, whole, 8, flipped=False, mode="bicubic")
    counts = np.zeros(3, int)
    for number in range(NUM_DRAWS):
        views = multi_crop(image, rule, generator("changed", number))
        counts[:2] += [not torch.equal(crop, plain_global) for crop in views["global_crops"]]
        counts[2] += sum(not torch.equal(crop, plain_local) for crop in views["local_crops"])
    return counts.tolist()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"flip_chance": 0.5}, (0.5, 0.5, 0.5)),
        ({"jitter_chance": 0.8}, (0.8, 0.8, 0.8)),
        ({"grey_chance": 0.2}, (0.2, 0.2, 0.2)),
        ({"solarise_chance": 0.2}, (0.0, 0.2, 0.0)),
        ({"blur": "paper", "blur_sigma": (1.0, 2.0)}, (1.0, 0.1, 0.5)),
        ({"blur": "reference", "blur_sigma": (1.0, 2.0)}, (0.0, 0.9, 0.5)),
    ],
    ids=str,
)
def test_each_distortion_happens_as_often_as_it_should(change, expected):
    rule = replace(NOTHING, blur_sigma=(1e-3, 1e-3))  # a blur this narrow changes nothing
    found = changed_share(replace(rule, **change))
    for count, chance, num_crops in zip(found, expected, (1, 1, 4), strict=True):
        assert binomtest(count, NUM_DRAWS * num_crops, chance).pvalue > ALMOST_NEVER


def only(**change) -> MultiCrop:
    return replace(NOTHING, **change)


def test_grey_has_equal_channels():
    image = distort(colourful(), only(grey_chance=1.0), 0, 0, random=generator(0))
    assert torch.equal(image[0], image[1])
    assert torch.equal(image[0], image[2])


def test_solarised_pixels_are_inverted_from_the_threshold_on():
    image = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16).expand(3, 16, 16)
    found = distort(image, NOTHING, 0, 1.0, random=generator(0))
    assert torch.equal(found, torch.where(image >= 128, 255 - image, image))


def test_blur_spares_flat_pictures_and_smooths_edges():
    rule = replace(NOTHING, blur_sigma=(1.5, 1.5))
    flat = torch.full((3, 32, 32), 77, dtype=torch.uint8)
    assert torch.equal(distort(flat, rule, 1.0, 0, random=generator(0)), flat)
    edge = torch.cat([flat[..., :16] * 0, flat[..., 16:]], dim=-1)
    row = distort(edge, rule, 1.0, 0, random=generator(0))[0, 16].int()
    weights = np.exp(-(np.arange(-4, 5) ** 2) / (2 * 1.5**2))
    expected = [77 * weights[4 - k :].sum() / weights.sum() for k in range(5)]  # k pixels into the bright side
    assert row[16:21].tolist() == pytest.approx(expected, abs=1)


def coloured() -> torch.Tensor:
    """Every kind of colour, greys, black and white among them, `(3, 40, 52)` in 0 to 1."""
    image = torch.rand(3, 40, 52, generator=torch.Generator().manual_seed(0))
    image[:, 0], image[:, 1], image[:, 2] = 0, 1, 0.5
    image[0, 3], image[1, 3:5], image[2, 4] = 1, 0, 1
    return image


@pytest.mark.parametrize("share", [-0.5, -0.1, 0, 0.03, 0.1])
def test_hues_turn_as_torchvision_turns_them(share):
    assert torch.allclose(hue_shifted(coloured(), share), T.adjust_hue(coloured(), share), atol=1e-5)


@pytest.mark.parametrize("sigma", [0.1, 0.7, 2.0])
def test_pictures_are_blurred_as_torchvision_blurs_them(sigma):
    assert torch.allclose(blurred(coloured(), 9, sigma), T.gaussian_blur(coloured(), [9, 9], [sigma]), atol=1e-5)


def test_a_resized_picture_is_cut_at_the_same_place():
    """The same numbers are drawn, and each means the same share of the picture.

    Rounding to pixels decides otherwise of a rectangle that just fits: of one in a hundred.
    """
    pairs = [
        [draw_box(height, 4 * height, (0.1, 1.0), (0.75, 1.35), random=generator(number)) for height in (800, 200)]
        for number in range(300)
    ]
    distances = [np.abs(np.array(large) / 4 - np.array(small)).max() for large, small in pairs]
    assert sum(distance <= 1.5 for distance in distances) >= 290


def test_jitter_of_one_strength_changes_as_its_formula_says():
    """Brightness multiplies; the factors are uniform in 1 - .4 to 1 + .4."""
    rule = only(jitter_chance=1.0, contrast=0.0, saturation=0.0, hue=0.0)
    grey = torch.full((3, 8, 8), 100, dtype=torch.uint8)
    levels = np.array([distort(grey, rule, 0, 0, random=generator(k)).float().mean() for k in range(NUM_DRAWS)])
    assert levels.min() >= 59.5
    assert levels.max() <= 140.5
    assert ks_2samp(levels, np.linspace(60, 140, 2000)).pvalue > ALMOST_NEVER


def test_orders_of_the_jitter_differ():
    """Brightness that saturates and contrast that does not commute with it."""
    rule = only(jitter_chance=1.0, brightness=0.4, contrast=0.4)
    image = colourful()
    assert len({distort(image, rule, 0, 0, random=generator(k)).numpy().tobytes() for k in range(20)}) == 20


def test_what_is_not_distorted_keeps_every_level():
    image = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16).expand(3, 16, 16)
    assert torch.equal(distort(image, NOTHING, 0, 0, random=generator(0)), image)


def test_gram_crops_are_the_global_crops_undistorted():
    image = noise(3, 72, 128)
    rule = replace(NOTHING, gram_size=16, flip_chance=0.5, num_local=1)
    chance_blur = replace(rule, blur_sigma=(1e-3, 1e-3))
    for number in range(10):
        views = multi_crop(image, chance_blur, generator(number))
        assert torch.equal(views["gram_crops"], views["global_crops"])
    distorted = multi_crop(image, replace(rule, jitter_chance=1.0, grey_chance=1.0), generator(0))
    plain = multi_crop(image, rule, generator(0))
    assert not torch.equal(distorted["global_crops"][0], plain["global_crops"][0])
    assert torch.equal(distorted["gram_crops"][0], plain["gram_crops"][0])


def test_gram_crops_have_a_size_of_their_own():
    assert multi_crop(noise(3, 72, 128), MultiCrop(gram_size=48), generator(0))["gram_crops"].shape == (2, 3, 48, 48)


# --- clips --------------------------------------------------------------------------------------------------------


def still(num_frames: int = 6) -> torch.Tensor:
    return noise(3, 72, 128).expand(num_frames, 3, 72, 128)


def test_a_clip_has_one_rectangle_and_one_flip():
    for number in range(10):
        view = crop_clip(still(), VideoCrop(size=32), generator(number))
        assert view.shape == (6, 3, 32, 32)
        assert view.dtype == torch.uint8
        assert torch.equal(view, view[:1].expand_as(view))


def test_a_clip_is_resized_without_antialiasing_and_pictures_with():
    """As V-JEPA 2's code: a fine pattern stays sharp when the picture shrinks, where an average would be grey."""
    stripes = (255 * (torch.arange(128) % 2)).to(torch.uint8).expand(2, 3, 72, 128)
    rule = VideoCrop(size=18, scale=(1.0, 1.0), ratio=(128 / 72, 128 / 72), flip_chance=0)
    box = Box(0, 0, 72, 128)
    exact = torch.nn.functional.interpolate(stripes.float(), (18, 18), mode="bilinear", align_corners=False)
    found = crop_clip(stripes, rule, generator(0))
    assert (found.float() - exact).abs().max() <= 1
    grey = resized_crop(stripes, box, 18, flipped=False)
    assert (grey.float() - 127.5).abs().max() < 20
    assert (found.float() - 127.5).abs().max() > 100
    assert torch.equal(crop_clip(stripes, replace(rule, antialias=True), generator(0)), grey)


def test_a_clip_is_flipped_as_often_as_it_should_be():
    ramp = torch.arange(128, dtype=torch.uint8).expand(2, 3, 72, 128)
    flipped = sum(
        bool(view[0, 0, 0, 0] > view[0, 0, 0, -1])
        for view in (crop_clip(ramp, VideoCrop(size=16), generator("flip", number)) for number in range(NUM_DRAWS))
    )
    assert binomtest(flipped, NUM_DRAWS, 0.5).pvalue > ALMOST_NEVER


def test_frames_of_a_clip_keep_their_order():
    clip = torch.stack([torch.full((3, 20, 30), 10 * index, dtype=torch.uint8) for index in range(8)])
    view = crop_clip(clip, VideoCrop(size=16), generator(0))
    assert view.float().mean((1, 2, 3)).tolist() == [10.0 * index for index in range(8)]


def test_multi_scale_rectangles_are_those_of_the_rule():
    random = generator("scales")
    found = [draw_multi_scale_box(100, 180, MULTI_SCALES, random) for _ in range(4000)]
    shapes = Counter((box.height, box.width) for box in found)
    sides = [100, 87, 75, 66]
    assert set(shapes) == {(sides[i], sides[j]) for i in range(4) for j in range(4) if abs(i - j) <= 1}
    for count in shapes.values():
        assert binomtest(count, 4000, 1 / 10).pvalue > ALMOST_NEVER
    places = Counter((box.top, box.left) for box in found if (box.height, box.width) == (75, 66))
    assert set(places) == {(6 * down, 28 * right) for right, down in QUARTERS}
    assert len(places) == 13


def test_the_teacher_sees_the_same_rectangle_of_every_second_frame():
    clip = noise(6, 3, 72, 128)
    for number in range(5):
        views = multi_scale_crop(clip, MultiScaleCrop(size=32, teacher_size=32, flip_chance=0.5), generator(number))
        assert torch.equal(views["teacher_frames"], views["clip"][::2])
    other_size = multi_scale_crop(clip, MultiScaleCrop(size=32, teacher_size=48), generator(0))
    assert other_size["teacher_frames"].shape == (3, 3, 48, 48)
    assert other_size["clip"].shape == (6, 3, 32, 32)


def test_without_a_teacher_there_is_only_the_clip():
    assert list(multi_scale_crop(noise(4, 3, 72, 128), MultiScaleCrop(size=32), generator(0))) == ["clip"]


def test_log_of_the_ratio_is_uniform():
    ratios = np.log([box.width / box.height for box in boxes((0.1, 0.2), (0.5, 2.0))])
    assert ks_2samp(ratios, np.linspace(-math.log(2), math.log(2), 4000)).pvalue > ALMOST_NEVER


# labelled clips


def test_a_labelled_clip_is_cut_mirrored_and_coloured_as_a_whole():
    random = torch.Generator().manual_seed(3)
    frame = torch.randint(0, 255, (3, 40, 60), dtype=torch.uint8, generator=random)
    clip = torch.stack([frame, frame, frame])
    rule = LabelledView(16, flip_chance=0.5, colour=0.3)
    views = [labelled_view(clip, rule, torch.Generator().manual_seed(seed)) for seed in range(6)]
    for view in views:
        assert view.shape == (3, 3, 16, 16)
        assert view.dtype == torch.uint8
        assert torch.equal(view[0], view[2])  # the same for all frames
    assert len({view[0].float().mean().item() for view in views}) == 6


def test_a_labelled_view_without_changes_is_the_resized_picture():
    clip = torch.randint(0, 255, (2, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    rule = LabelledView(16, scale=(1.0, 1.0), ratio=(1.0, 1.0), colour=0.0)
    expected = torch.nn.functional.interpolate(clip, (16, 16), mode="bicubic", antialias=True)
    assert torch.equal(labelled_view(clip, rule, torch.Generator().manual_seed(1)), expected)

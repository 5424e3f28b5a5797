"""From decoded frames to input pixels: resized, cropped, normalised by the rule in the config."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from common.video.preprocess import Preprocessing, normalise, resize


def picture(height: int, width: int, seed: int = 0) -> torch.Tensor:
    """A smooth random picture `(height, width, 3)` uint8."""
    coarse = torch.rand(1, 3, 6, 8, generator=torch.Generator().manual_seed(seed))
    smooth = F.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1)
    return (255 * smooth[0]).round().byte().permute(1, 2, 0).contiguous()


def preprocess(image: torch.Tensor, rule: Preprocessing) -> torch.Tensor:
    """One frame `(H, W, 3)` as `(3, size, size)`."""
    return resize(image[None], rule)[0]


@pytest.mark.parametrize("crop", ["none", "center"])
@pytest.mark.parametrize("shape", [(480, 640), (640, 480), (100, 100), (50, 300), (224, 224)])
def test_preprocessed_frame_is_a_uint8_square(shape, crop):
    pixels = preprocess(picture(*shape), Preprocessing(size=96, crop=crop))
    assert (pixels.shape, pixels.dtype) == ((3, 96, 96), torch.uint8)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_resizing_on_uint8_is_within_a_level_of_resizing_on_floats(interpolation):
    image = picture(480, 640)
    ours = preprocess(image, Preprocessing(size=224, interpolation=interpolation))
    exact = F.interpolate(
        image.permute(2, 0, 1)[None].double(), (224, 224), mode=interpolation, antialias=True, align_corners=False
    )[0]
    assert (ours.double() - exact.clamp(0, 255).round()).abs().max() <= 1


def test_resizing_is_antialiased():
    """Every pixel averages some 64 of a noise of standard deviation 74; without antialiasing it would average 4."""
    noise = torch.randint(0, 256, (512, 512, 3), generator=torch.Generator().manual_seed(0)).byte()
    assert preprocess(noise, Preprocessing(size=64)).float().std() < 12


def test_whole_field_is_kept_without_a_crop():
    image = torch.zeros(300, 600, 3, dtype=torch.uint8)
    image[:, :60] = 255  # the left tenth
    pixels = preprocess(image, Preprocessing(size=100))
    assert pixels[:, :, :9].min() > 250
    assert pixels[:, :, 11:].max() < 5


def test_center_crop_cuts_the_long_side_alike_at_both_ends():
    """256 x 512 with the short side to 256: columns 144 to 367 of the picture are left."""
    image = torch.arange(512).div(2, rounding_mode="floor").byte()[None, :, None].expand(256, 512, 3)
    pixels = preprocess(image, Preprocessing(size=224, crop="center", short_side=256))
    assert (pixels[0, 0, 0].item(), pixels[0, 0, -1].item()) == (144 // 2, 367 // 2)


def test_center_crop_of_an_upright_picture_cuts_top_and_bottom_alike():
    image = torch.arange(512).div(2, rounding_mode="floor").byte()[:, None, None].expand(512, 256, 3)
    pixels = preprocess(image, Preprocessing(size=224, crop="center", short_side=256))
    assert (pixels[0, 0, 0].item(), pixels[0, -1, 0].item()) == (144 // 2, 367 // 2)


def test_center_crop_without_a_short_side_is_the_librarys_own_square():
    """DINOv3's library resizes to the square itself."""
    rule = Preprocessing(size=112, crop="center")
    assert torch.equal(preprocess(picture(200, 300), rule), preprocess(picture(200, 300), replace(rule, crop="none")))


def test_channels_stay_red_green_blue():
    image = torch.tensor([200, 100, 50], dtype=torch.uint8).expand(60, 80, 3)
    assert preprocess(image, Preprocessing(size=32))[:, 5, 5].tolist() == [200, 100, 50]


def test_pixels_are_normalised_by_mean_and_std():
    rule = Preprocessing(mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
    pixels = torch.tensor([255, 102, 0], dtype=torch.uint8).view(1, 3, 1, 1).expand(2, 3, 8, 8)
    expected = torch.tensor([0.5 / 0.2, 0.0, -0.3 / 0.4]).view(1, 3, 1, 1).expand(2, 3, 8, 8)
    assert torch.allclose(normalise(pixels, rule), expected, atol=1e-5)


def test_clips_are_normalised_as_frames_are():
    pixels = torch.randint(0, 256, (2, 5, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    rule = Preprocessing(size=8)
    assert torch.equal(normalise(pixels, rule)[1, 2], normalise(pixels[1, 2], rule))


def test_a_batch_is_resized_frame_by_frame():
    images = torch.stack([picture(60, 80, seed) for seed in range(3)])
    rule = Preprocessing(size=32)
    assert torch.equal(resize(images, rule)[1], preprocess(images[1], rule))

"""Random views of frames and clips, every draw from one explicit generator.

Views stay uint8, a quarter of float32 on the way to the device, where `common.video.preprocess.normalise` makes them
floats. Where colours are distorted this is done in float32 and rounded once at the end, to half a level.
"""

import itertools
import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as T

BLUR_CHANCES = {"paper": (1.0, 0.1, 0.5), "reference": (0.0, 0.9, 0.5)}
"""Of the first global crop, the second, and a local one. DINO and its successors publish the first row, and DINO's code
does it; that of DINOv2 and DINOv3 hands on the opposite chance and in effect does the second."""

CROP_TRIES = 10
MULTI_SCALES = (1.0, 0.875, 0.75, 0.66)
QUARTERS = ((0, 0), (4, 0), (0, 4), (4, 4), (2, 2), (0, 2), (4, 2), (2, 4), (2, 0), (1, 1), (3, 1), (1, 3), (3, 3))
"""Places `(right, down)` of a multi-scale crop, in quarters of the room that it leaves."""

Range = tuple[float, float]


class Box(NamedTuple):
    """A rectangle of pixels."""

    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True)
class MultiCrop:
    """The views of DINOv3 (Siméoni et al. 2025; `dinov3:dinov3/data/augmentations.py`), recipe of ViT-L.

    Two global crops and `num_local` local ones; all chances are probabilities.
    """

    global_size: int = 224
    local_size: int = 96
    num_local: int = 8
    global_scale: Range = (0.32, 1.0)
    """Share of the picture's area."""
    local_scale: Range = (0.05, 0.32)
    ratio: Range = (3 / 4, 4 / 3)
    """Width over height."""
    flip_chance: float = 0.5
    jitter_chance: float = 0.8
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.2
    hue: float = 0.1
    grey_chance: float = 0.2
    blur: Literal["paper", "reference"] = "reference"
    """See `BLUR_CHANCES`."""
    blur_kernel: int = 9
    blur_sigma: Range = (0.1, 2.0)
    solarise_chance: float = 0.2
    """Of the second global crop."""
    solarise_threshold: int = 128
    gram_size: int | None = None
    """Side of the undistorted global crops that a Gram teacher sees; None: there is none."""


@dataclass(frozen=True)
class VideoCrop:
    """The view of V-JEPA 2 (`vjepa2:app/vjepa/transforms.py`): one rectangle and one flip for the whole clip.

    Its code resizes without antialiasing, unlike the others', which resize pictures of PIL.
    """

    size: int = 256
    scale: Range = (0.3, 1.0)
    ratio: Range = (0.75, 1.35)
    flip_chance: float = 0.5
    antialias: bool = False


@dataclass(frozen=True)
class MultiScaleCrop:
    """The view of VideoMAE (after Temporal Segment Networks, Wang et al. 2016): sides are shares of the shorter side.

    The two sides are neighbours in `scales` or equal, the place one of 13. With `teacher_size` an image teacher sees
    the same rectangle of every `teacher_stride`-th frame in another resolution (SurgVISTA: the first of each tubelet).
    """

    size: int = 224
    scales: tuple[float, ...] = MULTI_SCALES
    flip_chance: float = 0.0
    teacher_size: int | None = None
    teacher_stride: int = 2


@dataclass(frozen=True)
class LabelledView:
    """The view of a labelled clip: a rectangle, a flip and colours that are those of the whole clip.

    Mild beside those of self-supervision: what tells phases apart may lie at the edge of the picture, or in a colour.
    """

    size: int
    scale: Range = (0.6, 1.0)
    ratio: Range = (3 / 4, 4 / 3)
    flip_chance: float = 0.0
    colour: float = 0.2
    """Strength by which brightness, contrast and saturation change; hues turn by a quarter of it."""


def labelled_view(clip: Tensor, rule: LabelledView, random: torch.Generator) -> Tensor:
    """The view `(T, 3, size, size)` of a clip `(T, 3, H, W)` uint8."""
    box = draw_box(*clip.shape[-2:], rule.scale, rule.ratio, random=random)
    view = resized_crop(clip, box, rule.size, flipped=happens(rule.flip_chance, random), mode="bicubic")
    if not rule.colour:
        return view
    strength = dict.fromkeys(("brightness", "contrast", "saturation"), rule.colour)
    changes = draw_colours(MultiCrop(**strength, hue=rule.colour / 4), random)
    frames = [with_colours(T.to_dtype(frame, torch.float32, scale=True), changes) for frame in view]
    return torch.stack(frames).mul(255).round_().clamp_(0, 255).to(torch.uint8)


def multi_crop(image: Tensor, rule: MultiCrop, random: torch.Generator) -> dict[str, Tensor]:
    """Views of a frame `(3, H, W)` uint8.

    `global_crops` `(2, 3, G, G)`, `local_crops` `(num_local, 3, L, L)` and, where the rule has a size for them,
    `gram_crops` `(2, 3, S, S)`: the global crops without distortion.
    """
    chances = BLUR_CHANCES[rule.blur]
    views: dict[str, list[Tensor]] = {"global_crops": [], "local_crops": [], "gram_crops": []}
    for number in range(2):
        box, flipped = _draw_place(image, rule, rule.global_scale, random)
        view = resized_crop(image, box, rule.global_size, flipped=flipped, mode="bicubic")
        solarise_chance = rule.solarise_chance if number == 1 else 0.0
        views["global_crops"].append(distort(view, rule, chances[number], solarise_chance, random=random))
        if rule.gram_size is not None:
            views["gram_crops"].append(resized_crop(image, box, rule.gram_size, flipped=flipped, mode="bicubic"))
    for _ in range(rule.num_local):
        box, flipped = _draw_place(image, rule, rule.local_scale, random)
        view = resized_crop(image, box, rule.local_size, flipped=flipped, mode="bicubic")
        views["local_crops"].append(distort(view, rule, chances[2], 0.0, random=random))
    return {name: torch.stack(crops) for name, crops in views.items() if crops}


def crop_clip(clip: Tensor, rule: VideoCrop, random: torch.Generator) -> Tensor:
    """The view `(T, 3, size, size)` of a clip `(T, 3, H, W)` uint8."""
    box = draw_box(*clip.shape[-2:], rule.scale, rule.ratio, random=random)
    return resized_crop(clip, box, rule.size, flipped=happens(rule.flip_chance, random), antialias=rule.antialias)


def multi_scale_crop(clip: Tensor, rule: MultiScaleCrop, random: torch.Generator) -> dict[str, Tensor]:
    """Views of a clip `(T, 3, H, W)` uint8: `clip` `(T, 3, size, size)`, `teacher_frames` where the rule has them."""
    box = draw_multi_scale_box(*clip.shape[-2:], rule.scales, random)
    flipped = happens(rule.flip_chance, random)
    views = {"clip": resized_crop(clip, box, rule.size, flipped=flipped)}
    if rule.teacher_size is not None:
        chosen = clip[:: rule.teacher_stride]
        views["teacher_frames"] = resized_crop(chosen, box, rule.teacher_size, flipped=flipped)
    return views


def draw_box(height: int, width: int, scale: Range, ratio: Range, *, random: torch.Generator) -> Box:
    """A rectangle for a picture: area uniform in `scale`, log of width over height uniform in `ratio`, place uniform.

    What does not fit is drawn again; after ten tries the largest rectangle in the middle with a ratio allowed (Szegedy
    et al. 2015, as torchvision does it).
    """
    for _ in range(CROP_TRIES):
        # uniform in the log of the ratio, so that 3:4 and 4:3 are equally likely
        area = height * width * uniform(scale, random)
        aspect = math.exp(uniform((math.log(ratio[0]), math.log(ratio[1])), random))
        columns, rows = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < columns <= width and 0 < rows <= height:
            return Box(_below(height - rows + 1, random), _below(width - columns + 1, random), rows, columns)
    columns = min(width, round(height * ratio[1]))
    rows = min(height, round(width / ratio[0]))
    return Box((height - rows) // 2, (width - columns) // 2, rows, columns)


def draw_multi_scale_box(height: int, width: int, scales: tuple[float, ...], random: torch.Generator) -> Box:
    """A rectangle as `MultiScaleCrop` says, sizes and places equally likely."""
    sides = [int(min(height, width) * scale) for scale in scales]
    # neighbours in the list of scales only: the picture is stretched by a step at most
    shapes = [(sides[i], sides[j]) for i, j in itertools.product(range(len(sides)), repeat=2) if abs(i - j) <= 1]
    rows, columns = shapes[_below(len(shapes), random)]
    right, down = QUARTERS[_below(len(QUARTERS), random)]
    return Box((height - rows) // 4 * down, (width - columns) // 4 * right, rows, columns)


def resized_crop(
    images: Tensor, box: Box, size: int, *, flipped: bool, mode: str = "bilinear", antialias: bool = True
) -> Tensor:
    """A rectangle of pictures `([T,] 3, H, W)` uint8 as `([T,] 3, size, size)`, mirrored if `flipped`."""
    cut = images[..., box.top : box.top + box.height, box.left : box.left + box.width]
    batch = cut if cut.ndim == 4 else cut[None]
    resized = torch.nn.functional.interpolate(batch, (size, size), mode=mode, antialias=antialias)
    resized = resized if cut.ndim == 4 else resized[0]
    return resized.flip(-1) if flipped else resized


def distort(
    view: Tensor, rule: MultiCrop, blur_chance: float, solarise_chance: float, *, random: torch.Generator
) -> Tensor:
    """Colours of a view `(3, S, S)` uint8 jittered, greyed, blurred and solarised, each by chance, in this order."""
    image = T.to_dtype(view, torch.float32, scale=True)
    if happens(rule.jitter_chance, random):
        image = with_colours(image, draw_colours(rule, random))
    if happens(rule.grey_chance, random):
        image = T.rgb_to_grayscale(image, num_output_channels=3)
    if happens(blur_chance, random):
        image = blurred(image, rule.blur_kernel, uniform(rule.blur_sigma, random))
    if happens(solarise_chance, random):
        image = T.solarize(image, rule.solarise_threshold / 255)
    return image.mul(255).round_().clamp_(0, 255).to(torch.uint8)


class Colours(NamedTuple):
    """By how much the colours of a picture change, and in which order."""

    factors: tuple[float, float, float]
    """Of brightness, contrast and saturation."""
    hue: float
    """Share of the circle of hues."""
    order: list[int]


def draw_colours(rule: MultiCrop, random: torch.Generator) -> Colours:
    """Factors drawn around 1 (hue: around 0), and a random order."""
    strengths = (rule.brightness, rule.contrast, rule.saturation)
    brightness, contrast, saturation = (uniform((1 - strength, 1 + strength), random) for strength in strengths)
    hue = uniform((-rule.hue, rule.hue), random)
    return Colours((brightness, contrast, saturation), hue, torch.randperm(4, generator=random).tolist())


def with_colours(image: Tensor, colours: Colours) -> Tensor:
    """`(3, H, W)` float32 in 0 to 1 with its brightness, contrast, saturation and hue changed."""
    brightness, contrast, saturation = colours.factors
    changes = (
        lambda image: T.adjust_brightness(image, brightness),
        lambda image: T.adjust_contrast(image, contrast),
        lambda image: T.adjust_saturation(image, saturation),
        lambda image: hue_shifted(image, colours.hue),
    )
    for index in colours.order:
        image = changes[index](image)
    return image


def hue_shifted(image: Tensor, share: float) -> Tensor:
    """Colours of `(3, H, W)` float32 in 0 to 1 turned by a share of the circle of hues (HSV), as torchvision does it.

    By OpenCV, in a quarter of the time: this and the blur took most of that of a frame's views.
    """
    import cv2

    hsv = cv2.cvtColor(_for_opencv(image), cv2.COLOR_RGB2HSV)
    hsv[..., 0] = (hsv[..., 0] + 360 * share) % 360
    return torch.from_numpy(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)).permute(2, 0, 1)


def blurred(image: Tensor, kernel: int, sigma: float) -> Tensor:
    """`(3, H, W)` float32 blurred by a Gaussian of `kernel` pixels, mirrored at the edges, as torchvision does it.

    By OpenCV, which goes over rows and columns in turn: a twentieth of the time.
    """
    import cv2

    made = cv2.GaussianBlur(_for_opencv(image), (kernel, kernel), sigma, borderType=cv2.BORDER_REFLECT_101)
    return torch.from_numpy(made).permute(2, 0, 1)


def _for_opencv(image: Tensor) -> np.ndarray:
    return np.ascontiguousarray(image.permute(1, 2, 0).numpy())


def _draw_place(image: Tensor, rule: MultiCrop, scale: Range, random: torch.Generator) -> tuple[Box, bool]:
    box = draw_box(*image.shape[-2:], scale, rule.ratio, random=random)
    return box, happens(rule.flip_chance, random)


def uniform(limits: Range, random: torch.Generator) -> float:
    """A number between the limits."""
    return limits[0] + (limits[1] - limits[0]) * torch.rand((), dtype=torch.float64, generator=random).item()


def happens(chance: float, random: torch.Generator) -> bool:
    """True with probability `chance`; exactly always for 1 and never for 0."""
    return torch.rand((), dtype=torch.float64, generator=random).item() < chance


def _below(limit: int, random: torch.Generator) -> int:
    """A whole number from 0 to below `limit`: the same share of any limit, so that a resized picture is cut alike."""
    return min(int(uniform((0.0, limit), random)), limit - 1)

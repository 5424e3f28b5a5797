"""Drawing an eye as a surgical microscope shows it: the canvas, what one video looks like, the camera.

Points are complex numbers in eye units: 0 is the middle of the cornea, |z| = 1 the limbus, +1j the superior limbus (the
picture's lower side, where the surgeon sits). Colours are RGB, 0 to 255.
"""

from __future__ import annotations

import cmath
import math
from collections.abc import Mapping, Sequence

import cv2
import numpy as np

HEIGHT, WIDTH = 240, 320  # pixels of a frame
# what keeps still is painted once, over +-EXTENT eye units, at so many pixels an eye unit
EXTENT = 3.3
TEXTURE_SCALE = 96
# squared distance from the middle of the picture, 0 there and 1 in the corners
OFF_CENTRE = np.float32(np.add.outer(np.linspace(-1, 1, HEIGHT) ** 2, np.linspace(-1, 1, WIDTH) ** 2) / 2)
SUBPIXEL_BITS = 4  # OpenCV draws at 1/16 pixel, which keeps slow motion smooth

SIDEPORT = cmath.rect(0.99, math.radians(168))
WHITE = (246, 246, 242)

Colour = Sequence[float]
Points = Sequence[complex] | np.ndarray


def arc(centre: complex, radius: float, start: float, stop: float, squeeze: float = 1.0) -> np.ndarray:
    """Points (N,) along an ellipse from angle `start` to `stop` (degrees, clockwise in the picture)."""
    angles = np.radians(np.linspace(start, stop, max(3, int(abs(stop - start) / 8))))
    return centre + radius * (np.cos(angles) + 1j * squeeze * np.sin(angles))


def lay(image: np.ndarray, colour: Colour, weight: np.ndarray) -> None:
    """Lay `colour` over `image` (3, H, W) in place, as thickly as `weight` (H, W), 0..1."""
    image += (np.float32(colour)[:, None, None] - image) * weight


class Canvas:
    """A picture (3, H, W) float32 (planar: blends 5 times faster), drawn on in eye units: pixel = zoom * z + origin."""

    def __init__(self, image: np.ndarray, zoom: complex, origin: complex) -> None:
        self.image = image
        self.zoom = zoom
        self.origin = origin

    def stroke(self, points: Points, width: float, colour: Colour, alpha: float = 1.0, *, blur: float = 0.0) -> None:
        """Draw a line through `points`, softened by `blur`: pale under a pixel wide, of width 0 it fills the inside."""
        pixels = self.zoom * np.asarray(points) + self.origin
        sigma, pixels_wide = blur * abs(self.zoom), width * abs(self.zoom)
        # only the part of the picture that the line can reach is drawn and blended
        pad = pixels_wide + 3 * sigma + 2
        left, top = max(0, int(pixels.real.min() - pad)), max(0, int(pixels.imag.min() - pad))
        right, bottom = max(0, int(pixels.real.max() + pad)), max(0, int(pixels.imag.max() + pad))
        region = self.image[:, top:bottom, left:right]
        if not region.size or alpha <= 0:
            return
        mask = np.zeros(region.shape[1:], np.uint8)
        corners = np.stack([pixels.real - left, pixels.imag - top], axis=-1)[:, None]
        corners = np.round(corners * 2**SUBPIXEL_BITS).astype(np.int32)
        if width:
            alpha *= min(1.0, pixels_wide)
            cv2.polylines(mask, [corners], False, 255, max(1, round(pixels_wide)), cv2.LINE_AA, SUBPIXEL_BITS)
        else:
            cv2.fillPoly(mask, [corners], 255, cv2.LINE_AA, SUBPIXEL_BITS)
        if sigma > 0.3:
            mask = cv2.GaussianBlur(mask, (0, 0), sigma)
        lay(region, colour, mask * np.float32(alpha / 255))

    def fill(self, points: Points, colour: Colour, alpha: float = 1.0, *, blur: float = 0.0) -> None:
        """Fill a polygon; `blur` (eye units) softens its edge."""
        self.stroke(points, 0, colour, alpha, blur=blur)

    def disc(
        self, centre: complex, radius: float, colour: Colour, alpha: float, *, soft: float, squeeze: float = 1
    ) -> None:
        """Fill an ellipse, `squeeze` times as high as wide, that fades over the outer share `soft` of its radius."""
        outline = arc(centre, radius * (1 - 0.5 * soft), 0, 360, squeeze)
        self.fill(outline, colour, alpha, blur=0.3 * soft * radius)


class Wander:
    """A smooth random walk of time: a sum of slow sines, mostly within the unit circle."""

    def __init__(self, rng: np.random.Generator, slowest: float = 0.05, fastest: float = 0.5) -> None:
        self._rates = rng.uniform(slowest, fastest, (2, 3)) * 2 * math.pi
        self._phases = rng.uniform(0, 2 * math.pi, (2, 3))

    def __call__(self, seconds: float) -> complex:
        return complex(*np.sin(self._rates * seconds + self._phases).sum(axis=1) / 2.2)


class Look:
    """The same within one video, different between videos: the patient, the microscope, the camera."""

    def __init__(self, rng: np.random.Generator) -> None:
        def choose(*colours: Colour) -> np.ndarray:
            return np.clip(np.array(colours[rng.integers(len(colours))]) * rng.uniform(0.85, 1.15, 3), 0, 255)

        self.sclera = np.array([222, 200, 190]) * rng.uniform(0.92, 1.08, 3)
        self.iris = choose((88, 56, 36), (70, 48, 40), (120, 84, 50), (96, 104, 110), (54, 40, 34))
        self.reflex = choose((186, 66, 34), (150, 50, 36), (206, 110, 60), (96, 42, 34), (170, 120, 96))
        self.nucleus = choose((206, 196, 182), (190, 150, 92), (150, 106, 58), (176, 176, 172))
        self.density = rng.uniform(0.45, 0.9)  # of the cataract: how much of the red reflex it hides
        self.drape = choose((60, 112, 150), (70, 130, 110), (190, 196, 200), (90, 96, 140), (120, 150, 160))
        self.skin = choose((200, 150, 124), (150, 100, 76), (176, 124, 100))
        self.metal = choose((168, 172, 178), (150, 150, 152), (184, 182, 174))
        self.pupil_radius = rng.uniform(0.58, 0.72)  # eye units
        self.opening = rng.uniform(1.5, 1.85)  # half height of the gap between the lids, eye units
        self.scale = rng.uniform(66, 82)  # pixels an eye unit
        self.centre = complex(WIDTH / 2 + rng.uniform(-16, 16), HEIGHT / 2 + rng.uniform(-34, -8))  # pixels
        self.tilt = math.radians(rng.uniform(-28, 28))  # how far the eye is turned in the picture
        self.mirror = rng.random() < 0.5
        self.gains = rng.uniform(0.72, 1.1) * rng.uniform(0.88, 1.1, 3).astype(np.float32)  # exposure, white balance
        self.contrast = rng.uniform(0.85, 1.2)  # exponent of the camera's tone curve
        self.noise = rng.uniform(1.0, 3.0)  # standard deviation in levels of 255
        self.vignette = rng.uniform(0.1, 0.5)  # darkening of the corners


def _cloud(rng: np.random.Generator, cells: int, size: int) -> np.ndarray:
    """Smooth noise (size, size) float32, about -1 to 1, with `cells` blotches a side."""
    return cv2.resize(rng.standard_normal((cells, cells), np.float32) / 2, (size, size), interpolation=cv2.INTER_CUBIC)


def paint_still_eye(look: Look, rng: np.random.Generator) -> np.ndarray:
    """Everything of the eye that does not move in it: sclera, vessels, iris, lids, drape; (S, S, 3) uint8."""
    size = round(2 * EXTENT * TEXTURE_SCALE)
    axis = np.linspace(-EXTENT, EXTENT, size, dtype=np.float32)
    radius = np.hypot(axis[None], axis[:, None])
    angle = np.arctan2(axis[:, None], axis[None])
    shade = 1 - 0.1 * np.maximum(radius - 1, 0) + 0.05 * _cloud(rng, 14, size)
    image = np.float32(look.sclera)[:, None, None] * shade
    canvas = Canvas(image, TEXTURE_SCALE, EXTENT * TEXTURE_SCALE * (1 + 1j))
    _paint_vessels(canvas, rng)
    # the iris: random stripes by angle and radius, bent round, lighter towards the limbus
    fibres = cv2.resize(rng.normal(0, 1, (5, 150)).astype(np.float32), (720, 64), interpolation=cv2.INTER_CUBIC)
    fibre = cv2.remap(fibres, (angle / math.pi + 1) * 359, np.minimum(radius, 1) * 63, cv2.INTER_LINEAR)
    inside = np.clip((1.02 - radius) / 0.05, 0, 1)
    lay(image, look.iris, inside)
    image *= 1 + inside * (0.16 * fibre + 0.35 * (radius - 0.85))
    lay(image, (70, 66, 70), 0.45 * np.exp(-(((radius - 1) / 0.05) ** 2)))
    lay(image, (26, 14, 12), np.clip((look.pupil_radius - radius) / 0.03, 0, 1))
    _paint_lids(canvas, look, rng)
    return np.clip(image, 0, 255).astype(np.uint8).transpose(1, 2, 0).copy()


def _paint_vessels(canvas: Canvas, rng: np.random.Generator) -> None:
    """Conjunctival vessels: random walks towards the limbus."""
    for _ in range(rng.integers(40, 70)):
        heading = cmath.rect(1, rng.uniform(-math.pi, math.pi))
        path = [-rng.uniform(1.5, 2.6) * heading]
        while abs(path[-1]) > rng.uniform(1.04, 1.25) and len(path) < 26:
            heading *= cmath.rect(1, rng.normal(0, 0.36))
            path.append(path[-1] + 0.07 * (0.75 * heading - 0.25 * path[-1] / abs(path[-1])))
        canvas.stroke(path, rng.uniform(0.008, 0.022), (170, 80, 76), rng.uniform(0.25, 0.7), blur=0.004)


def _paint_lids(canvas: Canvas, look: Look, rng: np.random.Generator) -> None:
    """Lid skin and drape outside an almond-shaped gap, and the wires of the speculum that holds it open."""
    axis = np.linspace(-EXTENT, EXTENT, canvas.image.shape[1], dtype=np.float32)
    gap = look.opening * np.sqrt(np.clip(1 - (axis / rng.uniform(2.5, 3.0)) ** 2, 0, None))
    outside = np.abs(axis[:, None]) - gap[None]
    for colour, start, width in ((look.skin, 0.0, 0.05), (look.drape, rng.uniform(0.16, 0.32), 0.03)):
        lay(canvas.image, colour, np.clip((outside - start) / width, 0, 1))
    folds = 0.10 * _cloud(rng, 9, axis.size) + 0.05 * _cloud(rng, 60, axis.size)
    canvas.image *= 1 + folds * (outside > 0)
    lay(canvas.image, (60, 36, 30), 0.4 * np.exp(-((outside / 0.09) ** 2)))
    for side in (-1, 1):
        wire = side * (look.opening * 1j + np.array([-0.8 + 0.8j, -0.7 + 0.06j, -0.6, 0.6, 0.7 + 0.06j, 0.8 + 0.8j]))
        canvas.stroke(wire + 0.03 + 0.04j, 0.09, (40, 26, 24), 0.4, blur=0.03)
        canvas.stroke(wire, 0.075, look.metal * 0.8)
        canvas.stroke(wire - 0.015 - 0.015j, 0.02, WHITE, 0.8)


def nucleus_pose(done: Mapping[str, float]) -> tuple[complex, float, float]:
    """Where the nucleus lies, its radius and its squeeze: in the bag, in the anterior chamber, on its way out."""
    risen, out = done["nucleus_prolapse"], done["nucleus_delivery"]
    in_chamber, outside = 0.16j * risen, 1.75j
    centre = in_chamber + (outside - in_chamber) * out**1.3
    squeeze = 1 - 0.22 * math.sin(math.pi * risen) - 0.2 * out
    return centre, 0.46 + 0.07 * risen, squeeze


def draw_eye(canvas: Canvas, look: Look, done: Mapping[str, float]) -> None:
    """The eye as the phases so far (`done`: phase -> share 0..1) have left it."""
    _draw_lens(canvas, look, done)
    _draw_sclera(canvas, done)
    if done["nucleus_delivery"] < 1:
        centre, radius, squeeze = nucleus_pose(done)
        risen = max(done["nucleus_prolapse"], done["nucleus_delivery"])
        canvas.disc(centre + 0.06 + 0.1j, radius, (30, 16, 12), 0.5 * risen, soft=0.25, squeeze=squeeze)
        canvas.disc(centre, radius, look.nucleus, 0.3 + 0.65 * risen, soft=0.22, squeeze=squeeze)
        canvas.disc(centre, radius * 0.55, look.nucleus * 0.72, 0.5, soft=0.8, squeeze=squeeze)


def _draw_lens(canvas: Canvas, look: Look, done: Mapping[str, float]) -> None:
    """Red reflex, cataract, dye, cortex, capsule edge and lens implant: what of it is still or already there."""
    pupil = look.pupil_radius
    removed = done["nucleus_delivery"] >= 1
    canvas.disc(0, pupil, look.reflex, 0.9 if removed else 0.9 - 0.4 * look.density, soft=0.35)
    if removed:
        for angle in np.arange(11) * 2.4:  # cortex, sucked away bit by bit
            left = np.clip(1.3 - 1.4 * done["cortical_wash"] - 0.03 * angle, 0, 0.55)
            canvas.disc(cmath.rect(0.83 * pupil, angle), 0.15, (214, 206, 190), left, soft=0.8, squeeze=0.6)
    else:
        canvas.disc(0, pupil * 0.97, look.nucleus, 0.55 * look.density, soft=0.3)
        canvas.disc(0.02j, pupil * 0.85, (70, 110, 190), 0.22 * done["AB_injection_and_wash"], soft=0.3)
    edge = arc(0, 0.8 * pupil, -90, -90 + 360 * done["capsulorrhexis"])
    canvas.stroke(edge, 0.018, (226, 206, 200), 0.3 if removed else 0.75)
    if done["OVD_IOL_insertion"] >= 1:
        implant(canvas, 0, 0.6)


def implant(canvas: Canvas, centre: complex, alpha: float, turn: float = 0.5) -> None:
    """The lens implant: a clear optic with a bright edge and two curved haptics."""
    canvas.disc(centre, 0.40, (235, 225, 220), 0.18 * alpha, soft=0.1)
    canvas.stroke(centre + arc(0, 0.40, 0, 360), 0.025, WHITE, alpha)
    for way in (cmath.rect(1, turn), -cmath.rect(1, turn)):
        canvas.stroke(centre + way * arc(0.18, 0.44, -150, -20, 0.9), 0.028, (90, 120, 200), alpha)


def _draw_sclera(canvas: Canvas, done: Mapping[str, float]) -> None:
    """Bared sclera, burns, tunnel, groove, sideport and stitches."""
    if span := 52 * done["peritomy"]:
        flap = np.concatenate([arc(0, 1.05, 90 - span, 90 + span), arc(0, 1.42, 90 + span, 90 - span)])
        canvas.fill(flap, (236, 228, 220), 0.85, blur=0.02)
        canvas.stroke(arc(0, 1.43, 90 - span, 90 + span), 0.08, (206, 130, 118), 0.8, blur=0.02)
    for step in range(round(7 * done["cautery"])):
        burn = cmath.rect(1.22 + 0.05 * (step % 3), math.radians(64 + 8 * step))
        canvas.disc(burn, 0.05, (112, 84, 66), 0.5, soft=0.9)
    if depth := 0.36 * done["tunnel"]:
        pocket = np.concatenate([arc(0, 1.2, 66, 114), arc(0, 1.2 - depth, 116, 64)])
        canvas.fill(pocket, (196, 176, 170), 0.35, blur=0.02)
    if length := 40 * max(done["scleral_groove"], done["tunnel"] > 0):
        canvas.stroke(arc(2.42j, 1.2, -110, -110 + length), 0.035, (110, 40, 36), 0.9)
    canvas.stroke([SIDEPORT * 0.96, SIDEPORT * 1.03], 0.03, (90, 60, 56), 0.9 * done["sideport"])
    for x in (-0.16, 0, 0.16)[: round(3 * done["tunnel_suture"])]:
        canvas.stroke([x + 1.08j, x + 0.03 + 1.36j], 0.022, (24, 24, 40))


def draw_reflections(canvas: Canvas, sway: complex) -> None:
    """The lamps mirrored in the cornea; they swim as eye and microscope move."""
    for place, radius in ((-0.28 - 0.34j, 0.085), (-0.05 - 0.42j, 0.06), (0.5 + 0.62j, 0.035)):
        canvas.disc(place + sway * (1 + place.real), radius, (255, 253, 248), 0.95, soft=0.5, squeeze=0.8)


def view(still_eye: np.ndarray, zoom: complex, origin: complex) -> Canvas:
    """A picture of `still_eye` (S, S, 3) through a camera with pixel = zoom * z + origin."""
    factor, shift = zoom / TEXTURE_SCALE, origin - zoom * EXTENT * (1 + 1j)
    matrix = np.array([[factor.real, -factor.imag, shift.real], [factor.imag, factor.real, shift.imag]])
    image = cv2.warpAffine(still_eye, matrix, (WIDTH, HEIGHT), borderMode=cv2.BORDER_REPLICATE)
    return Canvas(np.array(cv2.split(image), np.float32), zoom, origin)


def expose(image: np.ndarray, look: Look, *, defocus: float, brightness: float, rng: np.random.Generator) -> np.ndarray:
    """The record (H, W, 3) uint8 of `image` (3, H, W): blurred by `defocus` pixels, vignette, noise, white balance."""
    if defocus > 0.3:
        image = np.array([cv2.GaussianBlur(plane, (0, 0), defocus) for plane in image])
    grain = look.noise * rng.standard_normal((HEIGHT, WIDTH), np.float32)
    image = np.clip(image * (1 - look.vignette * OFF_CENTRE) + grain, 0, 255)
    image = cv2.merge(list(image.astype(np.uint8)))
    # one tone curve a colour: exposure and white balance, clipped, then the camera's contrast
    curves = 255 * np.clip(np.linspace(0, brightness, 256)[:, None] * look.gains, 0, 1) ** look.contrast
    if look.mirror:
        image = cv2.flip(image, 1)
    return cv2.LUT(image, curves[None].astype(np.uint8))

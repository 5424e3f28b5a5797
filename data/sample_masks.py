"""Drawn images of an eye with the class of each pixel: the scenes of `sample_phases`, whose instruments are noted as they are drawn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from sample_eye import (
    HEIGHT,
    SUBPIXEL_BITS,
    WIDTH,
    Canvas,
    Colour,
    Look,
    Points,
    Wander,
    arc,
    draw_eye,
    draw_reflections,
    expose,
    paint_still_eye,
    view,
)
from sample_phases import Held, Scene
from sample_procedure import PROCEDURE, generator

BACKGROUND, IRIS, PUPIL, INSTRUMENT = range(4)
ORDER = tuple(dict.fromkeys(step.phase for step in PROCEDURE))
FPS = 10


@dataclass(frozen=True)
class NotedScene(Scene):
    """A scene that notes in `ids` (H, W) where the parts of its instruments are."""

    ids: np.ndarray

    def _part(self, held: Held, shape: Points, colour: Colour | None = None, alpha: float = 1.0) -> None:
        super()._part(held, shape, colour, alpha)
        tip, direction = held
        note(self.ids, self.canvas, tip + direction * np.asarray(shape), INSTRUMENT)


def note(ids: np.ndarray, canvas: Canvas, outline: Points, value: int) -> None:
    """Write `value` into `ids` (H, W) inside an outline in eye units, in place."""
    pixels = canvas.zoom * np.asarray(outline) + canvas.origin
    corners = np.round(np.stack([pixels.real, pixels.imag], axis=-1)[:, None] * 2**SUBPIXEL_BITS).astype(np.int32)
    cv2.fillPoly(ids, [corners], value, cv2.LINE_8, SUBPIXEL_BITS)


def draw_video(name: str, num_images: int, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Images (HEIGHT, WIDTH, 3) uint8 RGB of one eye with their masks (HEIGHT, WIDTH) uint8, at times spread over the operation."""
    look = Look(generator(seed, name, "look"))
    still_eye = paint_still_eye(look, generator(seed, name, "eye"))
    rng = generator(seed, name, "motion")
    drift, tremor, light = Wander(rng, 0.02, 0.08), Wander(rng, 0.2, 0.9), Wander(rng)
    for place in range(num_images):
        share = (place + rng.uniform(0, 1)) / num_images
        phase = min(int(share * len(ORDER)), len(ORDER) - 1)
        within = share * len(ORDER) - phase
        done = Counter(dict.fromkeys(ORDER[:phase], 1.0) | {ORDER[phase]: within})
        seconds = share * 300
        zoom = look.scale * rng.uniform(0.9, 1.15) * np.exp(1j * (look.tilt + 0.05 * drift(seconds + 99).real))
        canvas = view(still_eye, complex(zoom), look.centre + 9 * drift(seconds))
        ids = np.full((HEIGHT, WIDTH), BACKGROUND, np.uint8)
        note(ids, canvas, arc(0, 1.0, 0, 360), IRIS)
        note(ids, canvas, arc(0, look.pupil_radius, 0, 360), PUPIL)
        draw_eye(canvas, look, done)
        reach = 1.0 if rng.random() < 0.8 else rng.uniform(0.2, 0.9)
        scene = NotedScene(canvas, look, done, within, seconds, reach, tremor, rng, ids)
        getattr(scene, ORDER[phase])()
        draw_reflections(canvas, 0.12 * drift(seconds + 50))
        image = expose(canvas.image, look, defocus=0.0, brightness=1 + 0.08 * light(seconds).real, rng=rng)
        yield image, cv2.flip(ids, 1) if look.mirror else ids

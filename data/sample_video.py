"""One drawn video: its frames, their encoding, and the file of its labels."""

from __future__ import annotations

import cmath
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import cv2
import numpy as np
from sample_eye import HEIGHT, WIDTH, Look, Wander, draw_eye, draw_reflections, expose, paint_still_eye, view
from sample_phases import Scene
from sample_procedure import FPS, PREFIXES, Segment, generator, labels_of, make_schedule, video_names

from common.base.files import atomic_path, write_text
from common.base.paths import Dataset


def frames_of(name: str, schedule: list[Segment], seed: int) -> Iterator[np.ndarray]:
    """Draw the frames of one video, (HEIGHT, WIDTH, 3) uint8 RGB."""
    look = Look(generator(seed, name, "look"))
    still_eye = paint_still_eye(look, generator(seed, name, "eye"))
    rng = generator(seed, name, "motion")
    drift, shake, tremor, light = Wander(rng, 0.02, 0.08), Wander(rng, 0.6, 1.8), Wander(rng, 0.2, 0.9), Wander(rng)
    total = Counter(labels_of(schedule))
    seen: Counter[str] = Counter()
    magnification = 1.0
    for segment in schedule:
        aim = rng.uniform(0.9, 1.15)
        defocus = rng.choice([0.0, 0.0, 0.0, 1.2])
        pause = rng.uniform(0.25, 0.75)
        away = 0j
        if segment.phase == "background" and rng.random() < 0.6:  # the microscope is moved off the eye, out of focus
            away = cmath.rect(rng.uniform(60, 240), rng.uniform(-math.pi, math.pi))
            defocus = rng.uniform(0, 5)
        for index in range(segment.length):
            seconds = seen.total() / FPS
            seen[segment.phase] += 1
            # a Counter, so that phases which have not come yet are done to 0
            done = Counter({phase: seen[phase] / total[phase] for phase in seen})
            magnification += 0.44 * (aim - magnification)  # the surgeon turns the zoom, it does not jump
            zoom = cmath.rect(look.scale * magnification, look.tilt + 0.05 * drift(seconds + 99).real)
            gone = math.sin(math.pi * (index + 0.5) / segment.length)
            canvas = view(still_eye, zoom, look.centre + 9 * drift(seconds) + 1.3 * shake(seconds) + gone * away)
            draw_eye(canvas, look, done)
            reach = reach_of(index, segment.length, pause)
            scene = Scene(canvas, look, done, done[segment.phase], seconds, reach, tremor, rng)
            getattr(scene, segment.phase)()
            draw_reflections(canvas, 0.12 * drift(seconds + 50) + 0.03 * shake(seconds))
            brightness = 1 + 0.08 * light(seconds).real
            yield expose(canvas.image, look, defocus=defocus * (gone if away else 1), brightness=brightness, rng=rng)


def reach_of(index: int, length: int, pause: float) -> float:
    """The share 0..1 of the hands in the picture: they come in, may draw back once for a moment, and leave."""
    ramp = min(2.0, length / 4)
    if length > 6 and abs(index / length - pause) < 0.06:
        return 0.25
    return min(1.0, (index + 1) / ramp, (length - index) / ramp)


def encode(path: Path, frames: Iterator[np.ndarray]) -> None:
    """Write RGB frames as H.264, the same bytes for the same frames."""
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"crf": "27", "preset": "superfast", "g": "30"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.thread_count = 1  # slicing over threads would make the bytes depend on the machine's load
        for frame in frames:
            # RGB handed straight to the encoder gives other bytes from run to run.
            stream_frame = av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format="yuv420p")
            container.mux(stream.encode(stream_frame))
        container.mux(stream.encode(None))


@dataclass(frozen=True)
class Job:
    """One video to make: where it goes, and where its labels go."""

    name: str
    seed: int
    video: Path
    labels: Path

    def run(self) -> None:
        """Draw and encode the video, then write its labels."""
        cv2.setNumThreads(1)  # the processes share the cores already
        schedule = make_schedule(self.name, self.seed)
        with atomic_path(self.video) as temporary:
            encode(temporary, frames_of(self.name, schedule, self.seed))
        write_text(self.labels, "\n".join(labels_of(schedule)) + "\n")


def plan(dataset: Dataset, num_videos: int, seed: int) -> list[Job]:
    """One job a video of the set."""
    folders = [dataset.ground_truth] * num_videos + [dataset.ground_truth_val] * len(PREFIXES)
    return [
        Job(name, seed, dataset.videos / f"{name}.mp4", folder / f"{name}.txt")
        for name, folder in zip(video_names(num_videos), folders, strict=True)
    ]

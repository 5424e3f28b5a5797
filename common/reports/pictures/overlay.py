"""A video with its predicted phases: name, confidence and time on a bar, below them a strip of all phases."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont

from common.base.files import atomic_path
from common.base.runtime import UserError, progress
from common.base.wording import brief, clock, readable
from common.reports.pictures.fonts import font_file
from common.reports.pictures.style import phase_colours
from common.reports.pictures.timeline import DOUBTFUL_BELOW
from common.video.decode import Decoding
from common.video.preprocess import fitted
from common.video.probe import choose_stream, open_container
from common.video.timeline import Frame

if TYPE_CHECKING:  # comes with torch, and reports need none
    from common.head.new_videos import VideoPhases

TICKS_PER_SECOND = 90_000  # exact for the usual frame rates and for timestamps in milliseconds
ENCODER_OPTIONS = {"preset": "superfast", "crf": "20"}
SECONDS_BETWEEN_KEY_FRAMES = 2  # so that a player jumps to any place quickly
PANEL = np.array((13, 14, 18), dtype=np.uint8)  # added to a quarter of the picture's own brightness
WHITE, GREY, AMBER, RED = "#FFFFFF", "#B8BCC4", "#FFC45C", "#FF9C94"
SMALLEST_TEXT = 8  # pixels


def write_overlay(video: Path, phases: VideoPhases, path: Path, *, decoder: str = "pyav") -> Path:
    """Write `video` with `phases` drawn in as H.264 in MP4: the same frames at the same times, without sound.

    The picture keeps the size that it begins with; odd sides, which yuv420p does not have, lose their last row or
    column. Memory does not grow with the length of the video. Frames are those of `phases`, also of a damaged video.

    Raises `VideoError` when the video does not decode, `UserError` when it has other frames than `phases`.
    """
    total, count = len(phases.seconds), 0
    decoding = iter(Decoding(video, decoder, accept_damaged=True))
    with atomic_path(path) as temporary, closing(decoding) as frames:
        first = next(frames)
        size = first.image.shape[:2]
        height, width = (side // 2 * 2 for side in size)
        bar = PhaseBar(phases, width, height)
        with _writer(temporary, (width, height), phases, _pixel_aspect(video, first)) as write:
            for frame in progress(itertools.chain([first], frames), total=total, description="overlay", unit="frames"):
                if count < total:
                    image = np.require(fitted(frame.image, size)[:height, :width], requirements=["C", "W"])
                    bar.draw(image, count)
                    write(image, phases.seconds[count])
                count += 1
        if count != total:
            raise UserError(f"{video}: decodes to {count} frames, but its phases are of {total}; predict it again")
    return path


def _pixel_aspect(video: Path, frame: Frame) -> Fraction | None:
    """Width of a pixel over its height as the header says, for the upright picture; None where it does not say."""
    if video.is_dir():
        return None
    with open_container(video) as container:
        stream, _ = choose_stream(video, container)
        ratio = stream.sample_aspect_ratio
        turned = frame.image.shape[0] == stream.width != stream.height
    return 1 / ratio if ratio and turned else ratio or None


@contextmanager
def _writer(
    path: Path, size: tuple[int, int], phases: VideoPhases, pixel_aspect: Fraction | None
) -> Iterator[Callable[[np.ndarray, float], None]]:
    """Yield `write(image, seconds)`, which appends an RGB frame with its presentation time to an MP4 file."""
    import av
    from av.video.reformatter import ColorRange, Colorspace

    fps = len(phases.seconds) / float(np.ptp(phases.edges) or 1)

    def write(image: np.ndarray, seconds: float) -> None:
        """Encode a frame."""
        frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(
            format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG
        )
        frame.pts, frame.time_base = round(seconds * TICKS_PER_SECOND), Fraction(1, TICKS_PER_SECOND)
        container.mux(stream.encode(frame))

    try:
        with av.open(str(path), "w") as container:
            stream = container.add_stream(
                "libx264", rate=Fraction(fps).limit_denominator(1001), options=ENCODER_OPTIONS
            )
            stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
            context = stream.codec_context
            context.time_base = Fraction(1, TICKS_PER_SECOND)
            context.gop_size = max(1, round(SECONDS_BETWEEN_KEY_FRAMES * fps))
            context.colorspace, context.color_range = Colorspace.ITU709, ColorRange.MPEG
            if pixel_aspect:
                context.sample_aspect_ratio = pixel_aspect
            yield write
            container.mux(stream.encode())
    except av.error.FFmpegError as error:
        raise UserError(
            f"{path.parent}: the overlay cannot be written ({error.strerror}); "
            "free some space or choose another --output"
        ) from error


class PhaseBar:
    """Draws the phase of a frame onto its lower edge, and below it all phases of the video with the place in it."""

    def __init__(self, phases: VideoPhases, width: int, height: int):
        self.phases, self.width = phases, width
        self.colours = phase_colours(phases.mapping)
        self.names = [brief(readable(name)) for name in phases.mapping.names]
        self.text = "".join(sorted({*"".join(self.names)}))
        self.end = clock(phases.edges[-1])
        self.size = self._text_size(height)
        self.remark = " · ".join(phases.remarks)
        strip_height = max(4, round(0.45 * self.size))
        self.line = round(1.9 * self.size)
        remark_line = round(1.1 * self.size) if self.remark else 0
        self.bottom = height - strip_height
        self.top = max(0, self.bottom - self.line - remark_line)
        self.strip = self._strip(strip_height)

    def draw(self, image: np.ndarray, index: int) -> None:
        """Draw the bar of frame `index` into `image` `(height, width, 3)` uint8 RGB."""
        panel = image[self.top : self.bottom]
        np.right_shift(panel, 2, out=panel)
        panel += PANEL
        canvas = Image.fromarray(panel)
        self._write_line(ImageDraw.Draw(canvas), index)
        panel[:] = np.asarray(canvas)
        image[self.bottom :] = self.strip
        elapsed = self.phases.seconds[index] - self.phases.edges[0]
        self._mark(image, elapsed / (float(np.ptp(self.phases.edges)) or 1.0))

    def _write_line(self, draw: ImageDraw.ImageDraw, index: int) -> None:
        phase, confidence = int(self.phases.phase_ids[index]), float(self.phases.confidence[index])
        size, middle = self.size, self.line / 2
        bold, plain = _font(self.text, "Bold", size), _font(self.text, "", size)
        place = round(0.6 * size)
        chip = (place, middle - 0.42 * size, place + 0.84 * size, middle + 0.42 * size)
        draw.rounded_rectangle(chip, 0.2 * size, self.colours[phase], outline=GREY)
        place += round(1.3 * size)
        draw.text((place, middle), self.names[phase], WHITE, bold, anchor="lm")
        place += bold.getlength(self.names[phase]) + 0.7 * size
        doubtful = confidence < DOUBTFUL_BELOW
        draw.text((place, middle), f"{confidence:.0%}", AMBER if doubtful else GREY, plain, anchor="lm")
        place += plain.getlength("100%") + 0.7 * size
        time = f"{clock(self.phases.seconds[index])} / {self.end}"
        left = self.width - 0.6 * size - plain.getlength(time)
        if place <= left:
            draw.text((left, middle), time, GREY, plain, anchor="lm")
        if doubtful and len(self.names) > 1:
            second = int(np.argsort(self.phases.probabilities[index])[-2])
            rival = f"or {self.names[second]} {self.phases.probabilities[index, second]:.0%}"
            if place + plain.getlength(rival) + size <= left:
                draw.text((place, middle), rival, AMBER, plain, anchor="lm")
        if self.remark:
            small = _font(self.text, "", self._fitting(self.remark, "", round(0.7 * size), self.width - 1.2 * size))
            draw.text((0.6 * size, self.line + 0.3 * size), self.remark, RED, small, anchor="lm")

    def _mark(self, image: np.ndarray, share: float) -> None:
        """A white line with dark sides across the strip, at `share` of its width."""
        thickness = max(2, round(0.1 * self.size))
        left = round(share * (self.width - thickness))
        image[self.bottom :, max(0, left - thickness) : left + 2 * thickness] = 0
        image[self.bottom :, left : left + thickness] = 255

    def _strip(self, height: int) -> np.ndarray:
        """All phases over the time of the video, `(height, width, 3)` uint8; doubtful stretches have dark stripes."""
        edges, columns = self.phases.edges, np.arange(self.width)
        seconds = edges[0] + (columns + 0.5) / self.width * (edges[-1] - edges[0])
        frames = np.clip(np.searchsorted(edges, seconds, side="right") - 1, 0, len(self.phases.seconds) - 1)
        palette = np.array([ImageColor.getrgb(colour) for colour in self.colours], dtype=np.uint8)
        strip = np.repeat(palette[self.phases.phase_ids[frames]][None], height, axis=0)
        stripes = (columns + np.arange(height)[:, None]) % 6 < 2
        strip[stripes & (self.phases.confidence[frames] < DOUBTFUL_BELOW)] //= 3
        return strip

    def _text_size(self, height: int) -> int:
        """Pixels of the text: by the picture's height, less where the video's longest phase would not fit its width."""
        longest = max((self.names[phase] for phase in np.unique(self.phases.phase_ids)), key=len)
        line = f"■  {longest}  100%  {self.end} / {self.end}"
        return self._fitting(line, "Bold", round(0.042 * height), self.width)

    def _fitting(self, text: str, style: str, size: int, width: float) -> int:
        while size > SMALLEST_TEXT and _font(self.text, style, size).getlength(text) > width:
            size -= 1
        return max(size, SMALLEST_TEXT)


@functools.cache
def _font(characters: str, style: str, size: int) -> ImageFont.FreeTypeFont:
    """A font that has these characters; mostly DejaVu Sans, as matplotlib brings it: every machine draws the same."""
    return ImageFont.truetype(font_file(characters, bold=style == "Bold"), size)

"""A video with predicted segments, written in any format and read back."""

import datetime

import numpy as np

from common.dataset.annotations.annotated import KnownPhases, known_media, phases_of
from common.dataset.annotations.known_formats import annotation_format, annotation_texts, read_annotations, spellings_of
from common.dataset.annotations.prelabelled import Prelabelled, PrelabelledSegment
from common.dataset.annotations.tiling import tile

PHASES = ("background", "incision", 'wash&<rinse>"', "naht_über")
COLOURS = ("#DDDDDD", "#E65518", "#AA3377", "#72190E")
KNOWN = KnownPhases(PHASES)


def times_of(rate, num_frames=900):
    """Edges of frames at a constant rate, or `variable`: 25 a second, and half of that every other second."""
    if rate != "variable":
        return np.arange(num_frames + 1) / rate
    steps = np.where(np.arange(num_frames) // 25 % 2, 0.08, 0.04)
    return np.concatenate(([0], np.cumsum(steps)))


def prelabelled(name="case 7", edges=None, seed=0, num_segments=40):
    """A video whose segments begin anywhere; every third one is doubtful."""
    edges = times_of(25) if edges is None else edges
    random = np.random.default_rng(seed)
    bounds = np.unique(np.concatenate(([0, len(edges) - 1], random.integers(1, len(edges) - 1, num_segments - 1))))
    phases = np.cumsum(random.integers(1, len(PHASES), len(bounds) - 1)) % len(PHASES)
    segments = [
        PrelabelledSegment(
            int(start),
            int(end),
            PHASES[phase],
            float(random.uniform(0.3, 1)),
            "low -- & <so>" if index % 3 == 0 else "",
        )
        for index, (start, end, phase) in enumerate(zip(bounds[:-1], bounds[1:], phases, strict=True))
    ]
    return Prelabelled(name, f"{name}.mp4", edges, tuple(segments))


def texts_of(kind, videos):
    now = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    places = {video.name: f"../theatre/{video.file_name}" for video in videos}
    return annotation_texts(kind, videos, PHASES, COLOURS, places, folder_name="theatre", model="Base", now=now)


def write_out(kind, videos, folder):
    """The files of a format in a folder; the first of them."""
    paths = []
    for name, text in texts_of(kind, videos).items():
        paths.append(folder / name)
        paths[-1].write_text(text, encoding="utf-8")
    return paths[0]


def read_back(path, videos, known=KNOWN, **options):
    """The tiling of each video of a file, and the annotations."""
    kind, edges, found = annotation_format(path), {video.name: video.edges for video in videos}, {}
    assert kind is not None
    for annotated in read_annotations(path, known, kind, predictions=True, **options):
        name, start = known_media(annotated, edges, lambda medium, kind=kind: spellings_of(medium, kind))
        assert name not in found
        found[name] = tile(phases_of(annotated, known), edges[name] - start)
    return found


def sent(video):
    """The segments that went out."""
    return tuple((segment.start, segment.end, segment.phase) for segment in video.segments)

"""MS-TCN's own three (Abu Farha and Gall, CVPR 2019): features of I3D made elsewhere, a label for each, no videos."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from common.base.entries import visible
from common.base.files import map_array
from common.base.runtime import UserError
from common.dataset.importing.release import Entry, Labels, Phases, Reading, Release
from common.dataset.kfold import read_bundle
from common.dataset.phases import PhaseMapping, read_labels, read_mapping

ZENODO = "Zenodo record 3625992"


def _labels(path: Path, features: Path | None, mapping: PhaseMapping) -> Labels:
    labels = [mapping.names[phase_id] for phase_id in read_labels(path, mapping)]
    if features is not None:
        shape = map_array(features, "unpack the release again").shape
        if len(shape) != 2 or shape[1] != len(labels):
            raise UserError(f"{features}: expected (dimension, {len(labels)}), a column for each label, found {shape}")
    return labels


def _reader(folder_name: str, num_splits: int) -> Callable[[Reading], Iterator[Entry]]:
    def read(reading: Reading) -> Iterator[Entry]:
        """`mapping.txt`, `groundTruth/<video>.txt`, `features/<video>.npy`, `splits/{train,test}.split<k>.bundle`."""
        (source,) = reading.require("mapping.txt", f"{folder_name}/mapping.txt", f"data/{folder_name}/mapping.txt")
        folder = source.parent
        mapping = read_mapping(source)
        reading.phases = Phases(mapping.names)
        reading.splits["release"] = [
            {part: read_bundle(folder / "splits" / f"{part}.split{number}.bundle") for part in ("train", "test")}
            for number in range(1, num_splits + 1)
        ]
        labels = {path.stem: path for path in visible(folder, "groundTruth/*.txt")}
        features = {path.stem: path for path in visible(folder, "features/*.npy")} if reading.with_videos else {}
        for name, path, media in reading.pair(labels, features, "groundTruth/<video>.txt"):
            yield Entry(name, partial(_labels, path, media, mapping), path, media)

    return read


def _release(
    title: str,
    *,
    fps: int,
    num_videos: int,
    num_phases: int,
    num_splits: int,
    source: str,
    notes: tuple[str, ...] = (),
    background: str | None = None,
) -> Release:
    return Release(
        title=title,
        read=_reader(title.lower(), num_splits),
        phases=Phases(()),
        num_phases=num_phases,
        licence="not stated",
        source=f"{source}; features, labels and lists of yabufarha/ms-tcn@33ed91c, {ZENODO}",
        ask=f"{ZENODO}, open",
        num_videos=num_videos,
        hours=None,
        tried="miniature; form by the authors' code",
        background=background,
        label_fps=fps,
        feature_fps=fps,
        notes=("features made elsewhere, no videos: --model I3D --variant release --features_dim 2048", *notes),
    )


RELEASES = (
    _release(
        "GTEA",
        fps=15,
        num_videos=28,
        num_phases=11,
        num_splits=4,
        source="Fathi et al., CVPR 2011",
        background="background",
    ),
    _release(
        "50Salads",
        fps=30,
        num_videos=50,
        num_phases=19,
        num_splits=5,
        source="Stein and McKenna, UbiComp 2013",
        notes=(
            "published figures read every 2nd feature (--sample_rate 2) and repeat predictions",
            "action_start and action_end count as classes",
        ),
    ),
    _release("Breakfast", fps=15, num_videos=1712, num_phases=48, num_splits=4, source="Kuehne et al., CVPR 2014"),
)

"""Label files: names that are not in the mapping, files without labels, phases too short to be meant."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from common.base import paths
from common.base.entries import list_labels
from common.base.paths import label_paths
from common.base.runtime import UserError, counted, listed, naming, progress, shown
from common.base.wording import place, seconds_of
from common.checks.findings import Finding
from common.dataset.description import read_phases
from common.dataset.label_forms import NotLabels
from common.dataset.phases import IGNORED, PhaseMapping, UnknownPhases, read_labels, read_mapping
from common.dataset.segments import find_segments, without

KIND, SHORT_KIND = "labels", "short phases"
MIN_SECONDS = 0.4  # below it a phase is a slip of the hand
MOST_NAMES = 5  # unknown ones of a file, or faulty files of a folder, that are named one by one


def label_files(dataset: paths.Dataset) -> dict[str, Path]:
    """Label files by video, of both parts; of a video that is in both, that of `groundTruth/`."""
    return list_labels(dataset.ground_truth_val).first | list_labels(dataset.ground_truth).first


def read_all_labels(
    dataset: paths.Dataset, files: Mapping[str, Path], findings: list[Finding]
) -> tuple[PhaseMapping, dict[str, np.ndarray]]:
    """The mapping, and phase ids `(T,)` of the videos whose labels can be read; what is wrong is added to `findings`.

    Without a mapping no label can be read, and the other checks continue without.
    """
    try:
        mapping = read_mapping(dataset.mapping)
        with contextlib.suppress(UserError):  # a wrong dataset.yaml is a finding of the files
            mapping = read_phases(dataset)
    except UserError as error:
        advice = "correct it and audit again: no label could be checked"
        findings.append(Finding("error", KIND, naming(dataset.mapping, error), advice))
        return PhaseMapping(()), {}
    if not files:
        message = f"{dataset.ground_truth}: no label files (<video>.txt) here"
        findings.append(Finding("error", KIND, message, "data/README.md says how a data set is laid out"))
    labels = {}
    for video, path in progress(files.items(), description="labels", unit="file"):
        try:
            labels[video] = read_labels(path, mapping)
        except UnknownPhases as error:
            findings += _unknown_names(video, path, error, mapping)
        except NotLabels as error:
            message = f"{video}: {error.found}"
            findings.append(Finding("error", KIND, message, error.advice, video=video, line=error.line))
        except (UserError, OSError) as error:
            advice = "label this video again, or take its file and its video out of the data set"
            findings.append(Finding("error", KIND, f"{video}: {naming(path, error)}", advice, video=video))
    return mapping, labels


def require_sound_labels(dataset: paths.Dataset) -> tuple[PhaseMapping, dict[str, np.ndarray]]:
    """The mapping and phase ids `(T,)` of every video of `groundTruth/`.

    Raises `UserError` naming what is wrong with the mapping and the label files, all of them.
    """
    findings: list[Finding] = []
    mapping, labels = read_all_labels(dataset, label_paths(dataset.ground_truth), findings)
    if findings:
        lines = [f"{finding.message}; {finding.advice}" for finding in findings]
        more = [f"and {len(lines) - MOST_NAMES} more (python -m common.audit {dataset.root})"]
        raise UserError(
            "\n  ".join(["the labels need a look first:", *lines[:MOST_NAMES], *more[: len(lines) > MOST_NAMES]])
        )
    return mapping, labels


def _unknown_names(video: str, path: Path, error: UnknownPhases, mapping: PhaseMapping) -> Iterator[Finding]:
    """One finding for each unknown name of a file, at its first place; of more than a few one for the rest."""
    for name, found in list(error.places.items())[:MOST_NAMES]:
        number, frame = found[0]
        times = "once" if len(found) == 1 else f"{len(found)} times"
        text = f"{path}, line {number} (frame {frame}): unknown phase {shown(name)}, {times} in this file"
        advice = mapping.advice(name)
        yield Finding("error", KIND, f"{video}: {text}", advice, video=video, line=number, frame=frame)
    if len(error.places) > MOST_NAMES:
        text = f"{path}: {len(error.places) - MOST_NAMES} more unknown phases"
        yield Finding("error", KIND, f"{video}: {text}", "are these labels of this data set?", video=video)


def short_phases(
    labels: Mapping[str, np.ndarray], fps: Mapping[str, float | None], mapping: PhaseMapping, min_seconds: float
) -> Iterator[Finding]:
    """Phases of one frame or shorter than `min_seconds` (where the frame rate is known), one finding a video."""
    advice = "a slip of the annotation tool? Give these frames to a neighbouring phase, or lower --min_seconds"
    for video, ids in labels.items():
        rate = fps[video]
        segments = without(find_segments(ids), IGNORED)
        lengths = segments.ends - segments.starts
        # 0.4 s of 25 fps are 10 frames, also where a float says 10.000000000000002
        single = lengths == 1 if not rate or 1 / rate < MIN_SECONDS else False  # at a label a second one says enough
        short = single | (lengths < min_seconds * rate - 1e-6 if rate else False)
        found = [
            f"{mapping.names[phase]} at {place(start, rate)} for {counted(end - start, 'frame')}"
            + (f" ({(end - start) / rate:.2f} s)" if rate else "")
            for (phase, start, end), is_short in zip(segments, short, strict=True)
            if is_short
        ]
        if found:
            frame = int(segments.starts[short.argmax()])
            single_only = not rate or min_seconds * rate <= 1  # where a frame lasts as long
            limit = "of a single frame" if single_only else f"shorter than {min_seconds:g} s"
            message, seconds = f"{video}: {limit}: {listed(found)}", seconds_of(frame, rate)
            yield Finding("warning", SHORT_KIND, message, advice, video=video, frame=frame, seconds=seconds)

"""The commands on a GPU, against the same on the CPU; skipped where there is none."""

import numpy as np
import pytest
import torch

from common.base import paths
from common.base.files import read_json
from common.extract_features import main as extract
from common.head import batch_gen, training
from common.head.batch_gen import BatchGenerator
from common.head.checkpoint import Checkpoint, build_head
from common.head.experiment import load_experiment
from common.head.networks.recorded import RecordedSteps, StepInputs, recorded_length
from common.head.networks.recorded import _fill as fill_inputs
from common.head.training import TrainingLoop, adam, kept_as
from common.head.training import train as train_head
from common.train import main as train
from tests.common.odd_videos import joined, write

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")


@pytest.fixture
def clips(workspace, make_clip) -> paths.Dataset:
    """Two videos of moving texture, 40 and 3 frames."""
    texture = np.random.default_rng(0).integers(0, 255, (12, 16, 3), dtype=np.uint8).repeat(10, 0).repeat(10, 1)
    for name, count in (("BL_0", 40), ("BL_1", 3)):
        frames = [np.ascontiguousarray(np.roll(texture, (2 * index, 3 * index), axis=(0, 1))) for index in range(count)]
        make_clip(workspace / "data" / "clips" / "videos" / f"{name}.mp4", frames)
    return paths.dataset("clips")


def features(clips: paths.Dataset, model: str, device: str, *options: str) -> dict[str, np.ndarray]:
    """Features `(feature_dim, T)` of each video, made on a device."""
    words = ["--dataset", "clips", "--device", device, "--variant", device, *options]
    assert extract(words, model=model) == 0
    folder = clips.features(model, device)
    return {path.stem: np.load(path) for path in sorted(folder.glob("*.npy"))}


def least_cosine(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> float:
    """The smallest cosine between the two vectors of a frame."""
    cosines = []
    for name, first in ours.items():
        second = theirs[name]
        cosines.append((first * second).sum(0) / np.linalg.norm(first, axis=0) / np.linalg.norm(second, axis=0))
    return float(np.concatenate(cosines).min())


@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("ColorHistogram", []),
        ("EfficientNet-Lite0", []),
        ("Base", ["--weights", "random"]),
        ("DinoV3-Tiny", ["--weights", "random"]),
        ("V-JEPA2-Tiny", ["--weights", "random", "--stride", "4"]),
        ("V-JEPA2-Tiny", ["--weights", "random", "--mode", "tokens"]),
        ("V-JEPA2-Tiny", ["--weights", "random", "--clip_spacing", "0.1", "--fps", "5"]),
        ("V-JEPA2-Tiny", ["--weights", "random", "--mode", "tokens", "--clip_spacing", "0.1"]),
    ],
)
def test_features_are_those_of_the_cpu(clips, model, options):
    """Resized on the GPU, in batches of another size: the same vectors but for rounding."""
    on_cpu = features(clips, model, "cpu", *options, "--precision", "fp32")
    on_gpu = features(clips, model, "cuda", *options, "--precision", "fp32")
    assert {name: rows.shape for name, rows in on_gpu.items()} == {name: rows.shape for name, rows in on_cpu.items()}
    assert least_cosine(on_gpu, on_cpu) > 0.9995


def test_a_picture_that_changes_its_size_is_resized_on_the_gpu_too(clips):
    """Frames cross as they were decoded: chunks end where the size changes."""
    parts = [write(clips.root / "0.ts", range(30)), write(clips.root / "1.ts", range(30, 60), size=(72, 128))]
    joined(*parts, clips.videos / "BL_2.ts")
    on_cpu, on_gpu = (
        features(clips, "EfficientNet-Lite0", device, "--precision", "fp32") for device in ("cpu", "cuda")
    )
    assert on_gpu["BL_2"].shape == on_cpu["BL_2"].shape
    assert on_gpu["BL_2"].shape[1] == 60
    assert least_cosine(on_gpu, on_cpu) > 0.9995


def test_the_default_precision_is_bf16_and_close_to_fp32(clips):
    on_cpu = features(clips, "EfficientNet-Lite0", "cpu", "--precision", "fp32")
    on_gpu = features(clips, "EfficientNet-Lite0", "cuda")
    sidecar = read_json(clips.features("EfficientNet-Lite0", "cuda") / "BL_0.json")
    assert sidecar["precision"] == "bf16"
    assert least_cosine(on_gpu, on_cpu) > 0.998


def test_little_free_memory_means_smaller_batches(clips):
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(min(1.0, (torch.cuda.memory_reserved() + 600e6) / total))
    try:
        on_gpu = features(clips, "Base", "cuda", "--weights", "random", "--precision", "fp32")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert on_gpu["BL_0"].shape == (2048, 40)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_head_is_trained_resumed_and_predicts(made, precision):
    config = made.config(precision=precision, num_epochs=30)
    words = ["--dataset", "made", "--model", "ColorHistogram", "--precision", precision, "--num_epochs", "30"]
    small = ("num_layers_PG", "num_layers_R", "num_R", "num_f_maps", "lr")
    words += [word for name in small for word in (f"--{name}", str(getattr(config, name)))]
    assert train(["--action", "train", "--device", "cuda", *words]) == 0
    assert train(["--action", "train", "--device", "cuda", "--resume", *words]) == 0
    results = paths.model("ColorHistogram").split_results("made", 1)

    def predicted(device: str) -> tuple[dict[str, np.ndarray], float]:
        assert train(["--action", "predict", "--device", device, *words]) == 0
        accuracy = read_json(results / paths.RUN_RECORD)["metrics"]["challenge"]["accuracy"]
        return {path.stem: np.load(path) for path in results.glob("*.npy")}, accuracy

    on_gpu, accuracy = predicted("cuda")
    on_cpu, _ = predicted("cpu")
    assert accuracy > 0.8
    assert max(np.abs(on_gpu[name] - on_cpu[name]).max() for name in on_cpu) < 2e-3


HEADS = {
    "mstcn++": {},
    "linear": {},
    "gru": {"hidden": 6, "layers": 2},
    "tecno": {"layers": 3, "maps": 8},
    "asformer": {"decoders": 1, "layers": 3, "maps": 8},
}


def trained(made, run: str, *, recorded: bool = True, **settings) -> Checkpoint:
    """The checkpoint of a small training."""
    experiment = load_experiment(made.config(run=run, **settings))
    with pytest.MonkeyPatch.context() as patch:
        if not recorded:  # padded alike, and never replayed
            patch.setattr(RecordedSteps, "_run", steps_as_they_are)
        return train_head(experiment, device="cuda")


def steps_as_they_are(steps: RecordedSteps, given: StepInputs) -> tuple[torch.Tensor, ...]:
    shape = given.features.shape[0], recorded_length(given.features.shape[2])
    inputs = steps._place(given, *shape)
    fill_inputs(inputs, given)
    return steps._compute(*inputs)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("bz", [1, 2])
@pytest.mark.parametrize("head", HEADS)
def test_recorded_steps_are_the_steps_bit_for_bit(made, head, bz, precision):
    settings = {"head": head, "head_options": HEADS[head], "bz": bz, "precision": precision, "num_epochs": 5}
    settings["deterministic"] = head != "gru"  # whose library has no such way
    first = trained(made, "first", **settings)
    again = trained(made, "again", recorded=False, **settings)
    losses = [[entry["loss"] for entry in checkpoint.history] for checkpoint in (first, again)]
    if head == "gru":
        assert losses[0] == pytest.approx(losses[1], rel=1e-2)
        return
    assert losses[0] == losses[1]
    for name, value in first.model.items():
        assert torch.equal(value, again.model[name]), name


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_deterministic_training_resumes_to_the_same_bits(made, monkeypatch, precision):
    settings = {"precision": precision, "deterministic": True}
    whole = trained(made, "whole", num_epochs=6, **settings)
    save, stop = Checkpoint.save, 3

    def save_then_stop(checkpoint, path):
        save(checkpoint, path)
        if checkpoint.epoch == stop:
            raise InterruptedError

    monkeypatch.setattr(Checkpoint, "save", save_then_stop)
    experiment = load_experiment(made.config(run="stopped", num_epochs=6, **settings))
    with pytest.raises(InterruptedError):
        train_head(experiment, device="cuda")
    monkeypatch.setattr(Checkpoint, "save", save)
    resumed = train_head(experiment, device="cuda", resume=True)
    assert all(torch.equal(value, resumed.model[name]) for name, value in whole.model.items())


def test_a_training_goes_on_on_another_device(made, monkeypatch):
    settings = {"num_epochs": 4, "lr": 1e-3}
    for run, devices in (("gpu first", ("cuda", "cpu")), ("cpu first", ("cpu", "cuda"))):
        save = Checkpoint.save

        def save_then_stop(checkpoint, path, save=save):
            save(checkpoint, path)
            if checkpoint.epoch == 2:
                raise InterruptedError

        monkeypatch.setattr(Checkpoint, "save", save_then_stop)
        experiment = load_experiment(made.config(run=run.replace(" ", "_"), **settings))
        with pytest.raises(InterruptedError):
            train_head(experiment, device=devices[0])
        monkeypatch.setattr(Checkpoint, "save", save)
        assert train_head(experiment, device=devices[1], resume=True).epoch == 4


def test_the_learning_rate_drops_in_recordings_too(made, monkeypatch):
    """At a rate of nearly 0 from an epoch on, parameters stay where they are."""
    monkeypatch.setattr(training, "LEARNING_RATE_FACTOR", 0.0)
    parameters = []

    def keep(checkpoint, path):
        parameters.append({name: value.clone() for name, value in checkpoint.model.items()})

    monkeypatch.setattr(Checkpoint, "save", keep)
    train_head(load_experiment(made.config(num_epochs=10)), device="cuda")
    before, after, last = (parameters[epoch - 1] for epoch in (4, 6, 10))
    assert not all(torch.equal(value, after[name]) for name, value in before.items())
    assert all(torch.equal(value, last[name]) for name, value in after.items())


@pytest.mark.parametrize("head", ["mstcn++", "tecno"])
def test_no_step_waits_for_the_gpu(made, head):
    experiment = load_experiment(made.config(head=head, head_options=HEADS[head], precision="bf16"))
    device = torch.device("cuda")
    network = build_head(experiment.config, experiment.mapping.num_classes).to(device)
    loop = TrainingLoop(experiment.config, network, adam(experiment.config, network), None)
    batches = BatchGenerator(
        experiment.open(experiment.train_labels), 1, 0, dtype=kept_as(experiment.config), device=device
    )
    assert batches.on_device
    for epoch in range(3):  # recorded in the second
        for batch in batches.epoch(epoch):
            loop.step(batch)
    steps = list(batches.epoch(3))
    torch.cuda.set_sync_debug_mode("error")
    try:
        for batch in steps:
            loop.step(batch)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_features_that_do_not_fit_are_sent_in_each_step(made, monkeypatch):
    on_device = trained(made, "there", num_epochs=3, deterministic=True)
    monkeypatch.setattr(batch_gen, "DEVICE_SHARE", 0.0)
    sent = trained(made, "sent", num_epochs=3, deterministic=True)
    assert all(torch.equal(value, sent.model[name]) for name, value in on_device.model.items())

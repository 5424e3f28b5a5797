"""The training loop of Stage 2: it learns, stops by the validation videos alone, and resumes exactly where it was."""

import csv
import json
import logging
import math
import signal
from collections import Counter
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from transformers.modeling_layers import GradientCheckpointingLayer

from common.base.runtime import UserError
from common.dataset import manifest as manifests
from common.encoders.base import build_encoder
from common.encoders.weights.adapters import find_adapted
from pretrain.engine.interruption import Interruption
from pretrain.engine.sharding import recompute_blocks
from pretrain.lora.adapters import add_adapters, relative_difference
from pretrain.lora.data import read_batches
from pretrain.lora.phase_classifier import PhaseClassifier
from pretrain.lora.training import Finetuning, scores
from pretrain.video_data.clips import ClipReader
from tests.pretrain.finetuning import (
    base_config,
    noise,
    options_of,
    sha256_of,
    training_of,
    write_dataset,
    write_export,
)


@pytest.fixture
def dataset(workspace):
    return write_dataset(workspace / "data" / "Made")


@pytest.fixture
def training(dataset, workspace, tmp_path):
    """`training(...)`: a new one in `tmp_path/run`, by options that differ from the short ones."""

    def build(name: str = "dinov3-tiny", output: str = "run", **changes) -> Finetuning:
        export = workspace / f"{name}-export"
        if not export.is_dir():
            write_export(name, export)
        return training_of(dataset, options_of(name, tmp_path / output, **changes), export)

    return build


def script(training: Finetuning, accuracies: list[float], monkeypatch) -> None:
    """Validations that find the given balanced accuracies."""
    found = iter(accuracies)
    record = {"accuracy": 0.5, "loss": 1.0, "clips": 1, "recall": {}}
    monkeypatch.setattr(training, "_measure", lambda _: record | {"balanced_accuracy": next(found)})


def measured(training: Finetuning) -> float:
    return training._measure(Interruption())["balanced_accuracy"]


# --- learning -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["dinov3-tiny", "vjepa2-tiny"])
def test_a_few_steps_learn_two_colours_and_leave_an_adapter_that_stage_3_reads(training, workspace, name):
    run = training(name, epochs=3)
    untrained = measured(run)
    assert run.run() == 0
    best = run.options.best_lora
    assert run.state.best > max(0.9, untrained)
    base = base_config(name, workspace / f"{name}-export")
    assert run.writer.check(base, run.validation_clips(2)) < 1e-5

    clips = run.validation_clips(2)
    frames = clips if name == "vjepa2-tiny" else clips[:, 0]
    source = find_adapted(best)
    assert source.sha256 == sha256_of(workspace / f"{name}-export")
    merged = build_encoder(replace(base, ssl_checkpoint=None, lora_path=str(best))).encode(frames)
    assert relative_difference(merged, build_encoder(base).encode(frames)) > 1e-3
    assert relative_difference(merged, run.classifier.features(clips)) < 1e-5


def test_bf16_learns_too_and_keeps_parameters_and_head_in_float32(training):
    run = training(epochs=3)
    run.in_bf16 = True
    assert run.run() == 0
    assert run.state.best > 0.9
    assert {value.dtype for value in run.classifier.state_dict().values()} == {torch.float32}
    with torch.autocast("cpu", torch.bfloat16):
        assert run.classifier(noise(1, 1, 3, 64, 64)).dtype == torch.float32


def test_the_base_is_untouched(training):
    run = training()
    base = {key: value.clone() for key, value in run.classifier.state_dict().items() if "base_layer" in key}
    assert len(base) == 8 + 6  # weights of four projections in two layers, biases but of the keys
    run.run()
    after = run.classifier.state_dict()
    assert all(torch.equal(after[key], value) for key, value in base.items())


def test_the_same_seed_gives_the_same_training(training):
    first, again, other = training(output="a"), training(output="b"), training(output="c", seed=7)
    for run in (first, again, other):
        run.run()
    states = [run.classifier.trainable_state() for run in (first, again, other)]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert not all(torch.equal(states[0][key], states[2][key]) for key in states[0])


def test_rates_warm_up_and_fall_to_0(training):
    run = training(epochs=1, steps_per_epoch=10, warmup_share=0.2, weight_decay=0.3)
    rates = []
    for batch in run._training_batches():
        run._bar = NoBar()
        run._train_step(batch)
        rates.append([group["lr"] for group in run.optimizer.param_groups])
    assert [rate[0] for rate in rates[:3]] == pytest.approx([0.0, 0.5e-2, 1e-2])
    assert rates[-1] == [0.0, 0.0]
    assert [rate[1] / rate[0] for rate in rates[1:-1]] == pytest.approx([3.0] * 8)
    assert [group["weight_decay"] for group in run.optimizer.param_groups] == [0.3, 0.3]


class NoBar:
    def set_postfix(self, **_):
        """Nothing to show."""

    update = set_postfix


def test_training_batches_balance_the_classes(training):
    """One phase has four times the frames of the other; bounds are 5 standard deviations of a fair coin."""
    run = training(epochs=1, steps_per_epoch=100)
    labels = Counter(torch.cat([batch["label"] for batch in run._training_batches()]).tolist())
    assert abs(labels[0] - 200) < 5 * math.sqrt(400 / 4)
    assert labels.total() == 400


def test_dropout_of_the_adapters_is_all_that_training_mode_changes(training):
    """DINOv3's own training mode draws the scale of its positions."""
    clips = noise(2, 1, 3, 64, 64)
    classifier = training(dropout=0.0).classifier
    assert torch.equal(classifier.train()(clips), classifier.eval()(clips))
    with_dropout = training(dropout=0.5).classifier
    with torch.no_grad():
        for name, parameter in with_dropout.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    assert not torch.equal(with_dropout.train()(clips), with_dropout(clips))
    assert torch.equal(with_dropout.eval()(clips), with_dropout(clips))


@pytest.mark.parametrize("name", ["dinov3-tiny", "vjepa2-tiny"])
def test_recomputed_blocks_give_the_same_gradients(workspace, tmp_path, name):
    config = base_config(name, write_export(name, tmp_path / "ssl"))
    clips = noise(2, 1 if name == "dinov3-tiny" else 8, 3, 64, 64)
    gradients: list[dict[str, Tensor]] = []
    for recompute in (False, True):
        encoder = build_encoder(config)
        add_adapters(encoder.network, rank=2, alpha=4.0, dropout=0.0)
        if recompute:
            recompute_blocks(encoder.network, (GradientCheckpointingLayer,))
        classifier = PhaseClassifier(encoder, 3).train()
        classifier(clips).square().sum().backward()
        found = {key: value.grad for key, value in classifier.named_parameters() if value.requires_grad}
        assert not any(gradient is None for gradient in found.values())
        assert any(gradient.any() for key, gradient in found.items() if "lora_B" in key)
        gradients.append(found)
    assert all(torch.allclose(gradients[0][key], gradients[1][key], atol=1e-6) for key in gradients[0])


def test_a_loss_that_is_not_finite_stops_with_the_videos(training):
    run = training()
    with torch.no_grad():
        run.classifier.head.weight.fill_(math.inf)
    with pytest.raises(UserError, match=r"step 1: the loss is nan, .* on Made/case_\d, .*lower --learning_rate"):
        run.run()
    assert not run.last.exists()


# --- validation -----------------------------------------------------------------------------------------------------


def test_scores_by_hand():
    """Three of a, one right; one of b, right; none of c."""
    logits = torch.tensor([[2.0, 0, 0], [0, 2.0, 0], [0, 0, 2.0], [0, 2.0, 0]])
    found = scores(logits, torch.tensor([0, 0, 0, 1]), ("a", "b", "c"))
    right, wrong = math.log(math.e**2 + 2) - 2, math.log(math.e**2 + 2)
    assert found == {
        "balanced_accuracy": pytest.approx((1 / 3 + 1) / 2),
        "accuracy": 0.5,
        "loss": pytest.approx((2 * right + 2 * wrong) / 4),
        "clips": 4,
        "recall": {"a": pytest.approx(1 / 3), "b": 1.0, "c": None},
    }


def test_validation_reads_validation_videos_and_training_the_others(training):
    run = training()
    run.run()
    train, validation = run.clips.train.reader.asked, run.clips.validation.reader.asked
    assert set(train) | set(validation) == {f"case_{number}" for number in range(6)}
    assert len(set(validation)) == 2
    assert not set(train) & set(validation)
    assert len(validation) == 2 * len(run.clips.validation)  # every clip of the grid, twice


def test_the_best_validation_is_kept_and_patience_ends_the_training(training, monkeypatch):
    run = training(epochs=9, patience=3)
    script(run, [0.5, 0.7, 0.6, 0.7, 0.65, 0.9], monkeypatch)
    run.run()
    assert [record["epoch"] for record in run.state.history] == [1, 2, 3, 4, 5]
    assert run.is_finished
    assert json.loads((run.options.best_lora / "metrics.json").read_text())["epoch"] == 2
    assert (run.state.best, run.state.validations_since_best) == (0.7, 3)


def test_without_patience_running_out_all_epochs_are_trained(training, monkeypatch):
    run = training(epochs=4, patience=2)
    script(run, [0.5, 0.4, 0.6, 0.5], monkeypatch)
    run.run()
    assert [record["step"] for record in run.state.history] == [4, 8, 12, 16]


def test_metrics_are_a_table_with_a_row_a_validation(training):
    run = training()
    run.run()
    with open(run.metrics, newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["epoch"], row["step"]) for row in rows] == [("1", "4"), ("2", "8")]
    assert list(rows[0]) == [
        "epoch", "step", "loss", "validation_loss", "accuracy", "balanced_accuracy", "learning_rate", "seconds",
    ]  # fmt: skip
    assert all(math.isfinite(float(value)) for row in rows for value in row.values())


# --- what is left behind --------------------------------------------------------------------------------------------


def test_best_lora_is_complete(training, workspace):
    run = training()
    run.run()
    best = run.options.best_lora
    assert {path.name for path in best.iterdir()} == {
        "adapter_config.json", "adapter_model.safetensors", "head.safetensors", "metrics.json", "provenance.json",
        "manifest.json",
    }  # fmt: skip
    facts = json.loads((best / "provenance.json").read_text())
    assert {key: facts[key] for key in ("model", "stage", "base", "datasets", "classes")} == {
        "model": "dinov3-tiny", "stage": "lora", "base": "stage1", "datasets": ["Made"], "classes": ["cut", "rinse"],
    }  # fmt: skip
    assert facts["base_checkpoint"] == str(workspace / "dinov3-tiny-export" / "export")
    assert facts["options"]["rank"] == 2
    assert {"torch", "transformers", "peft"} <= facts["versions"].keys()
    metrics = json.loads((best / "metrics.json").read_text())
    assert metrics["validation"].keys() == {"balanced_accuracy", "accuracy", "loss", "clips", "recall"}
    assert find_adapted(best).adapter is not None


def test_the_manifest_names_the_videos_of_both_sides_and_those_of_stage_1(training):
    run = training()
    run.run()
    manifest = manifests.read_manifest(run.options.best_lora / "manifest.json")
    assert (manifest.stage, manifest.model) == ("lora", "dinov3-tiny")
    assert {(video.corpus, video.name) for video in manifest.videos} == {("Made", f"case_{n}") for n in range(6)}
    assert len({video.fingerprint for video in manifest.videos}) == 6
    record = find_adapted(run.options.best_lora).to_json()
    assert [found.stage for found in manifests.manifests_of_weights(record)] == ["lora", "ssl"]


def test_a_base_that_does_not_say_what_it_has_seen(training, workspace, caplog):
    run = training(epochs=1)
    (workspace / "dinov3-tiny-export" / "manifest.json").unlink()
    run.run()
    assert "no manifest.json says which videos Stage 1 has seen" in caplog.text
    assert manifests.read_manifest(run.options.best_lora / "manifest.json").based_on == ()


def test_a_check_against_another_adapter_fails(training, monkeypatch, workspace):
    run = training()
    run.run()
    monkeypatch.setattr("pretrain.lora.adapter_writer.load_adapter", lambda folder, adapted: scramble(adapted))
    with pytest.raises(RuntimeError, match=r"best_lora: the merged adapter gives other features than in training"):
        run.writer.check(base_config("dinov3-tiny", workspace / "dinov3-tiny-export"), run.validation_clips(2))


def scramble(adapted: torch.nn.Module) -> None:
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_()


# --- resuming -------------------------------------------------------------------------------------------------------


def without_seconds(history: list[dict]) -> list[dict]:
    return [{key: value for key, value in record.items() if key != "seconds"} for record in history]


def signal_at_step(run: Finetuning, step: int, monkeypatch) -> None:
    """A SIGTERM in the middle of a step."""
    train_step = run._train_step

    def noisy(batch) -> None:
        if run.state.step == step:
            signal.raise_signal(signal.SIGTERM)
        train_step(batch)

    monkeypatch.setattr(run, "_train_step", noisy)


@pytest.mark.slow
@pytest.mark.parametrize("step", [1, 3, 4, 6], ids=lambda step: f"after step {step + 1}")
def test_a_training_that_was_stopped_ends_as_if_it_never_was(training, monkeypatch, step):
    whole = training(output="whole", dropout=0.3)
    whole.run()
    stopped = training(output="run", dropout=0.3)
    signal_at_step(stopped, step, monkeypatch)
    assert stopped.run() == 143
    assert stopped.state.step == step + 1
    assert not stopped.is_finished

    resumed = training(output="run", dropout=0.3)
    assert resumed.state.step == step + 1
    assert resumed.run() == 0
    expected = whole.classifier.trainable_state()
    assert all(torch.equal(value, expected[key]) for key, value in resumed.classifier.trainable_state().items())
    assert without_seconds(resumed.state.history) == without_seconds(whole.state.history)


def test_a_signal_during_validation_repeats_it(training, monkeypatch):
    run = training()
    logits = run._logits
    monkeypatch.setattr(run, "_logits", lambda batch: interrupt_in_evaluation(run, logits, batch))
    assert run.run() == 143
    assert (run.state.step, run.state.history) == (4, [])
    assert not run.options.best_lora.exists()
    resumed = training()
    resumed.run()
    assert [record["step"] for record in resumed.state.history] == [4, 8]


def interrupt_in_evaluation(run: Finetuning, logits, batch) -> Tensor:
    if not run.classifier.training:
        signal.raise_signal(signal.SIGTERM)
    return logits(batch)


def test_a_signal_after_the_last_validation_changes_nothing(training, monkeypatch):
    run = training()
    write_metrics = run.state.write_metrics
    monkeypatch.setattr(
        run.state, "write_metrics", lambda path: (write_metrics(path), run.is_finished and signal.raise_signal(15))
    )
    assert run.run() == 0


def test_the_end_of_the_job_puts_it_back_into_the_queue(training, monkeypatch):
    asked = []
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    monkeypatch.setattr("pretrain.engine.interruption.requeue", asked.append)
    run = training()
    train_step = run._train_step
    monkeypatch.setattr(run, "_train_step", lambda batch: (signal.raise_signal(signal.SIGUSR1), train_step(batch)))
    assert run.run() == 0
    assert asked == ["17"]
    assert run.last.is_file()


def test_a_finished_training_does_nothing_more(training):
    training().run()
    again = training()
    before = again.last.stat().st_mtime_ns
    assert again.is_finished
    assert again.run() == 0
    assert again.last.stat().st_mtime_ns == before


def test_changed_options_are_said_and_used(training, caplog):
    training(epochs=1).run()
    with caplog.at_level(logging.WARNING):
        run = training(epochs=2, learning_rate=5e-3, weight_decay=0.5)
    assert "epochs 2 instead of 1" in caplog.text
    assert "learning_rate 0.005 instead of 0.01" in caplog.text
    assert "num_workers" not in caplog.text
    run.run()
    assert [record["epoch"] for record in run.state.history] == [1, 2]
    assert run.optimizer.param_groups[0]["weight_decay"] == 0.5


def test_resume_never_refuses_a_folder_that_has_a_training(training):
    training().run()
    with pytest.raises(UserError, match=r"last\.pt is there already; give --output another folder"):
        training(resume="never")


def test_another_training_in_the_folder_is_refused(training, workspace):
    training().run()
    with pytest.raises(UserError, match=r"last\.pt: this training has another adapter \(rank 2, now rank 3\)"):
        training(rank=3)
    with pytest.raises(UserError, match=r"another number of steps per epoch \(4, now 5\)"):
        training(steps_per_epoch=5)
    with pytest.raises(UserError, match=r"another model \(dinov3-tiny, now vjepa2-tiny\)"):
        training("vjepa2-tiny")
    write_export("dinov3-tiny", workspace / "dinov3-tiny-export", seed=2)
    with pytest.raises(UserError, match=r"last\.pt: this training has another base "):
        training()


def test_a_damaged_or_foreign_last_pt(training):
    run = training()
    run.run()
    torch.save({"format": 1, "step": 3}, run.last)
    with pytest.raises(UserError, match=r"damaged or unsafe checkpoint \(options, base_sha256, .* missing\)"):
        training()
    run.last.write_bytes(b"PK")
    with pytest.raises(UserError, match="damaged or unsafe checkpoint"):
        training()


# --- reading --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_video_that_does_not_decode_is_named(training, num_workers):
    clips = training().clips.train
    clips.reader = ClipReader()
    with pytest.raises(UserError, match=r"^\S+case_\d\.mp4: cannot be decoded"):
        list(read_batches(clips, range(4), 2, num_workers=num_workers))

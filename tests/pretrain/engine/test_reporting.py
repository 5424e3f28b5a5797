"""Metrics, rates and the lines of a log without a terminal."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from pretrain.engine import reporting
from pretrain.engine.checkpoints.checkpoint import TrainingState
from pretrain.engine.checkpoints.run_folder import RunFolder
from pretrain.engine.distributed import Processes
from pretrain.engine.reporting import MetricsFile, TrainingReport, peak_flops, peak_of, read_metrics, transformer_flops
from tests.pretrain.engine.toy import ALONE, OPTIONS


def report(flops=None, processes=ALONE) -> TrainingReport:
    options = replace(OPTIONS, accumulate=3).completed(on_gpu=False, world_size=processes.world_size)
    state = TrainingState("toy", options.to_json(), 10, processes.world_size, 1, {})
    return TrainingReport(state, options, processes, flops)


def test_rates_count_all_samples_of_all_processes():
    found = report(processes=Processes(0, 2, torch.device("cpu"))).rates(2.0, 0.5)
    assert found["samples_per_second"] == 4 * 3 * 2 / 2.0
    assert found["data_share"] == 0.25
    assert found["memory_gigabytes"] > 0.01
    assert "mfu" not in found


def test_utilisation_is_of_all_devices_together(monkeypatch):
    monkeypatch.setattr(reporting, "peak_flops", lambda device, precision: 1000.0)
    found = report(flops=50.0, processes=Processes(0, 2, torch.device("cpu"))).rates(2.0, 0.5)
    assert found["mfu"] == pytest.approx(50 * 12 / (2 * 1000))


def test_a_log_gets_a_line_now_and_then(tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO")
    monkeypatch.setattr(reporting, "SECONDS_BETWEEN_LINES", -1)
    shown = report()
    with shown.opened(RunFolder(tmp_path), wandb=False):
        shown.state.step = 3
        shown.show({"loss": 1.25} | shown.rates(2.0, 0.5))
    assert "toy dinov3-tiny: step 3 of 10, loss 1.2500, images/s 6.0, waits for data 25%, MFU n/a" in caplog.text


def test_only_the_first_process_writes(tmp_path):
    second = report(processes=Processes(1, 2, torch.device("cpu")))
    with second.opened(RunFolder(tmp_path), wandb=False):
        second.write({"loss": 1.0})
        second.show({"loss": 1.0})
    assert list(tmp_path.iterdir()) == []


def test_a_metrics_file_keeps_finished_steps_and_drops_a_short_line(tmp_path):
    path = tmp_path / "metrics.jsonl"
    first = MetricsFile(path, 0)
    for step in range(4):
        first.append({"step": step, "loss": float("inf") if step == 1 else 0.1})
    with path.open("a") as stream:
        stream.write('{"step": 4, "lo')
    MetricsFile(path, 2)
    assert read_metrics(path) == [
        {"step": 0, "loss": 0.1}, {"step": 1, "loss": None}, {"step": 2, "loss": 0.1},
    ]  # fmt: skip
    MetricsFile(path, 0)
    assert path.read_text() == ""


# utilisation: operations by hand, peaks by device name


def test_operations_of_one_layer_are_those_that_torch_counts():
    width, tokens = 16, 10
    layer = nn.TransformerEncoderLayer(width, 2, 64, dropout=0.0, batch_first=True)
    matrices = sum(parameter.numel() for parameter in layer.parameters() if parameter.ndim > 1)
    # other kernels compute the product of queries and keys again in the backward pass
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        layer(torch.randn(1, tokens, width, requires_grad=True)).sum().backward()
    expected = transformer_flops(matrices, tokens, num_layers=1, width=width)
    assert counter.get_total_flops() == pytest.approx(expected)


def test_a_pass_without_gradients_costs_a_third():
    sizes = {"num_layers": 24, "width": 1024}
    forward = transformer_flops(303_000_000, 201, **sizes, backward=False)
    assert transformer_flops(303_000_000, 201, **sizes) == 3 * forward


@pytest.mark.parametrize(
    ("name", "precision", "expected"),
    [
        ("NVIDIA H100 80GB HBM3", "bf16", 989e12),
        ("NVIDIA H100 PCIe", "bf16", 756e12),
        ("NVIDIA H200", "bf16", 989e12),
        ("NVIDIA A100-SXM4-80GB", "bf16", 312e12),
        ("NVIDIA A100-SXM4-80GB", "fp32", 19.5e12),
        ("NVIDIA A40", "bf16", 149.7e12),
        ("Some Other Device", "bf16", None),
    ],
)
def test_peaks_by_device_name(name, precision, expected):
    assert peak_of(name, precision) == expected


def test_a_cpu_has_no_listed_peak():
    assert peak_flops(torch.device("cpu"), "fp32") is None

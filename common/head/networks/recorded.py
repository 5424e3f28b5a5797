"""Training steps on a GPU, recorded once for each length and replayed: one launch in place of three thousand.

A step of MS-TCN++ is three thousand small kernels, and Python takes four times as long to launch them as a GPU to run them. A CUDA
graph launches all at once, but only for one shape and for one place in memory: batches are padded to a few lengths and copied to
where the recording reads them. The plain equal is the step itself on the batch as it is, and padding never reaches a frame.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from common.dataset.phases import IGNORED

LENGTHS_AN_OCTAVE = (
    8  # at most an eighth of a batch is padding, and sequences of 4,097 to 16,384 frames need 16 recordings
)


class StepInputs(NamedTuple):
    """What a step reads: features `(B, feature_dim, T)`, target `(B, T)`, mask `(B, 1, T)`, smoothing weights `(B, T)`.

    No mask: no padding; no smoothing weights: the loss smooths everywhere alike.
    """

    features: Tensor
    target: Tensor
    mask: Tensor | None
    smoothing: Tensor | None


@dataclass(eq=False)
class _Recording:
    """The step of one shape: where it reads, and once it was recorded the graph and where that writes."""

    inputs: StepInputs
    has_run: bool = False
    graph: torch.cuda.CUDAGraph | None = None
    outputs: tuple[Tensor, ...] = ()


def recorded_length(num_frames: int) -> int:
    """The least length that is recorded and holds so many frames."""
    step = max(1, (1 << (num_frames - 1).bit_length()) // (2 * LENGTHS_AN_OCTAVE))
    return -(-num_frames // step) * step


class RecordedSteps:
    """Calls `compute(*StepInputs)`, a whole step up to the optimizer's, on batches padded to a few lengths; on a GPU recorded.

    Of each shape the first step runs as it is, the second is recorded, and that and all later ones are replayed, with the same
    draws from `generator`. `compute` must leave nothing for the host to decide. On a CPU nothing is recorded.
    """

    def __init__(self, compute: Callable[..., tuple[Tensor, ...]], generator: torch.Generator):
        self._compute, self._generator = compute, generator
        self._recordings: dict[tuple[int, int], _Recording] = {}
        self._room: Tensor | None = None  # for the features of any shape: one of them is read at a time
        self._stream = self._pool = None
        if generator.device.type == "cuda":
            self._stream = torch.cuda.Stream(generator.device)  # the default one cannot be recorded
            self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, *batch: Tensor | None) -> tuple[Tensor, ...]:
        """What `compute` returns for a batch (`StepInputs`), in memory of its own."""
        given = StepInputs(*batch)
        if self._stream is None:
            return self._run(given)
        outside = torch.cuda.current_stream(self._stream.device)
        self._stream.wait_stream(outside)
        with torch.cuda.stream(self._stream):
            outputs = self._run(given)
        outside.wait_stream(self._stream)
        return outputs

    def _run(self, given: StepInputs) -> tuple[Tensor, ...]:
        shape = given.features.shape[0], recorded_length(given.features.shape[2])
        recording = self._recordings.get(shape)
        if recording is None:
            recording = self._recordings[shape] = _Recording(self._place(given, *shape))
        _fill(recording.inputs, given)
        if self._stream is None or not recording.has_run:  # libraries choose and load their kernels at the first one
            recording.has_run = True
            return self._compute(*recording.inputs)
        if recording.graph is None:
            self._record(recording)
        recording.graph.replay()
        return tuple(output.clone() for output in recording.outputs)

    def _record(self, recording: _Recording) -> None:
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(self._generator)
        # thread_local: the thread that prepares the next batch goes on meanwhile, and may ask for memory
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
            recording.outputs = self._compute(*recording.inputs)
        recording.graph = graph

    def _place(self, given: StepInputs, batch_size: int, num_frames: int) -> StepInputs:
        """Memory that stays, for batches of a shape."""
        device, feature_dim = self._generator.device, given.features.shape[1]
        needed = batch_size * num_frames * feature_dim
        if self._room is None or self._room.numel() < needed:  # recordings keep the one that they were made with
            self._room = torch.empty(needed, dtype=given.features.dtype, device=device)
        rows = self._room[:needed].view(batch_size, num_frames, feature_dim)
        return StepInputs(
            rows.transpose(1, 2),
            torch.empty(batch_size, num_frames, dtype=torch.long, device=device),
            torch.empty(batch_size, 1, num_frames, device=device),
            None if given.smoothing is None else torch.empty(batch_size, num_frames, device=device),
        )


def _fill(inputs: StepInputs, given: StepInputs) -> None:
    """Put a batch where a step reads it, and padding behind it."""
    mask = torch.ones((), device=inputs.mask.device) if given.mask is None else given.mask
    given = given._replace(mask=mask.expand(given.features.shape[0], 1, given.features.shape[2]))
    for place, value, padding in zip(inputs, given, (0, IGNORED, 0, 1), strict=True):
        if place is not None:
            length = value.shape[-1]
            place[..., :length].copy_(value, non_blocking=True)
            place[..., length:].fill_(padding)

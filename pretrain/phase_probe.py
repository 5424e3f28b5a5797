"""The phase probe of a training: do features tell the phases of a labelled data set apart, by nearest neighbours?"""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader

from common.base import paths
from common.base.runtime import UserError
from common.video.preprocess import Preprocessing
from pretrain.annotations.phase_classes import read_phase_classes
from pretrain.engine.distributed import Processes
from pretrain.engine.loop import Features
from pretrain.lora.data import check_labelled_packs
from pretrain.lora.labelled_clips import LabelledClips
from pretrain.objectives.reduce import all_gather
from pretrain.ssl_dataset import checked_batches, in_processes
from pretrain.video_data.clips import ClipReader

MOST_CLIPS = 1024  # of either split
NEIGHBOURS = 20


class NearestPhases:
    """A `PhaseProbe`: clips of one part of a data set's videos are told by their neighbours in the other part.

    The same clips at every check, shared out among the processes.
    """

    def __init__(
        self,
        dataset: str,
        preprocessing: Preprocessing,
        processes: Processes,
        *,
        clip_len: int,
        fps: float,
        batch_size: int,
        num_workers: int = 0,
        seed: int = 42,
        packed: Sequence[Path] = (),
    ):
        """Of `packed` folders that of the data set is read in place of its videos.

        Raises `UserError` for a data set that is absent, or whose phases `phase_classes.yaml` does not have.
        """
        datasets = [paths.dataset(dataset)]
        check_labelled_packs(datasets, packed, fps=fps if clip_len > 1 else None, size=preprocessing.size)
        self.processes, self.batch_size, self.num_workers = processes, batch_size, num_workers
        clips = partial(
            LabelledClips,
            datasets,
            read_phase_classes(),
            reader=ClipReader(),
            preprocessing=preprocessing,
            clip_len=clip_len,
            fps=fps,
            seed=seed,
            packed=packed,
        )
        self.bank, self.queries = clips(split="train"), clips(split="validation")

    def __call__(self, features: Features) -> dict[str, float]:
        """`balanced_accuracy`, which decides what is best, and `accuracy` of the nearest neighbours' vote."""
        bank_numbers, query_numbers = list(range(min(len(self.bank), MOST_CLIPS))), evenly(len(self.queries))
        accuracy, balanced = knn_accuracy(
            self._features(features, self.bank, bank_numbers),
            torch.tensor([self.bank.draw(number).label for number in bank_numbers]),
            self._features(features, self.queries, query_numbers),
            torch.tensor([self.queries.grid[number].label for number in query_numbers]),
            k=min(NEIGHBOURS, len(bank_numbers)),
        )
        return {"balanced_accuracy": balanced, "accuracy": accuracy}

    def _features(self, features: Features, clips: LabelledClips, numbers: list[int]) -> Tensor:
        """`(len(numbers), D)` on the CPU, the same in all processes."""
        own = list(self._own_batches(numbers))
        processes = in_processes(self.num_workers)
        batches = DataLoader(clips, batch_sampler=own, collate_fn=stack_clips, **processes)
        parts = [all_gather(features(batch)).cpu() for batch in checked_batches(batches)]
        return torch.cat(parts)[: len(numbers)]

    def _own_batches(self, numbers: list[int]) -> Iterator[list[int]]:
        """This process's part of each batch of all processes; the last is filled up with its last number."""
        size = self.batch_size * self.processes.world_size
        for start in range(0, len(numbers), size):
            together = numbers[start : start + size]
            together += together[-1:] * (size - len(together))
            first = self.processes.rank * self.batch_size
            yield together[first : first + self.batch_size]


def evenly(count: int, most: int = MOST_CLIPS) -> list[int]:
    """At most `most` numbers below `count`, spread evenly."""
    return np.linspace(0, count - 1, min(count, most)).round().astype(int).tolist()


def stack_clips(samples: list[dict]) -> dict[str, Tensor]:
    """A batch for a recipe's `features`: `clip` `(B, T, 3, S, S)` uint8."""
    return {"clip": torch.stack([sample["clip"] for sample in samples])}


@torch.no_grad()
def knn_accuracy(
    train_features: Tensor,
    train_labels: Tensor,
    test_features: Tensor,
    test_labels: Tensor,
    *,
    k: int = 20,
    temperature: float = 0.07,
    chunk_size: int = 1024,
) -> tuple[float, float]:
    """Accuracy and balanced accuracy (mean recall of the classes in `test_labels`) of the weighted vote, 0 to 1.

    Features `(N, D)`, labels `(N,)` integers from 0. The k training features of highest cosine similarity s each vote
    for their class with exp(s / temperature) (Wu et al., CVPR 2018, section 3.4; the k-NN evaluation of DINO, Caron et
    al., ICCV 2021). Memory is `chunk_size` x N_train; the computation runs in fp32, where the training features are.

    Raises `UserError` for fewer than k training features, no test feature, and features that are not finite.
    """
    if not 1 <= k <= len(train_features):
        raise UserError(f"k = {k} neighbours cannot be found among {len(train_features)} training features")
    if not len(test_features):
        raise UserError("no test features: the kNN probe has nothing to measure")
    device = train_features.device
    train_labels, test_labels = train_labels.to(device), test_labels.to(device)
    bank = _unit_vectors(train_features)
    num_classes = int(train_labels.max()) + 1
    predicted = []
    for queries in test_features.split(chunk_size):
        nearest, index = (_unit_vectors(queries.to(device)) @ bank.T).topk(k, dim=1)
        weights = (nearest / temperature).softmax(dim=1)  # the votes up to a factor per query, without overflow
        votes = weights.new_zeros(len(queries), num_classes).scatter_add_(1, train_labels[index], weights)
        predicted.append(votes.argmax(dim=1))
    correct = torch.cat(predicted) == test_labels
    recalls = [correct[test_labels == label].double().mean() for label in test_labels.unique()]
    return float(correct.double().mean()), float(torch.stack(recalls).mean())


def _unit_vectors(features: Tensor) -> Tensor:
    if not torch.isfinite(features).all():
        raise UserError("features hold NaN or infinity: the network that made them has diverged")
    return F.normalize(features.float(), dim=1)

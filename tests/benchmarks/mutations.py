"""The mutants of `mutants.py`: small mistakes that a person could make, picked by hand, and the tests that must find each."""

from __future__ import annotations

from typing import NamedTuple


class Mutant(NamedTuple):
    """`old` is in `file` exactly once, and becomes `new`; `tests` are files of tests."""

    file: str
    old: str
    new: str
    tests: tuple[str, ...]


def mutants(file: str, tests: str, changes: dict[str, str]) -> list[Mutant]:
    """Mutants of one file that the same tests find: files of tests, separated by blanks."""
    return [Mutant(file, old, new, tuple(tests.split())) for old, new in changes.items()]


SCORING = "tests/common/scoring"
OBJECTIVES = "tests/pretrain/objectives"

MEASURES = [
    *mutants("common/scoring/metrics.py", f"{SCORING}/test_metrics.py", {
        "NUM_BINS = 15": "NUM_BINS = 10",
        "np.ceil(confidence * NUM_BINS).astype(int) - 1": "np.floor(confidence * NUM_BINS).astype(int)",
        "np.abs(bins[..., 1] - bins[..., 2]).sum(-1)": "np.abs((bins[..., 1] - bins[..., 2]).sum(-1))",
        "_ratio(2 * _hits(confusion), ": "_ratio(_hits(confusion), ",
        "_ratio(_hits(confusion), confusion.sum(-1))": "_ratio(_hits(confusion), confusion.sum(-2))",
        "_ratio(_hits(confusion), confusion.sum(-2))": "_ratio(_hits(confusion), confusion.sum(-1))",
        "confusion.sum(-2) + confusion.sum(-1) - hits": "confusion.sum(-2) + confusion.sum(-1)",
        "2 * confusion.sum((-2, -1)) - hits": "confusion.sum((-2, -1))",
        "np.nanmean(": "np.mean(",
        "np.asarray(true, dtype=np.int64) * num_classes": "np.asarray(true) * num_classes",
        "2 * hits + false_positives + false_negatives": "2 * hits + false_positives",
        "hits / (num_frames - ": "hits / (1 + num_frames - ",
        "np.full(np.shape(denominator), np.nan)": "np.zeros(np.shape(denominator))",
    }),
    *mutants("common/dataset/segments.py", "tests/common/dataset/test_segments.py", {
        "ends[-1:] -= 1": "ends[-1:] -= 0",
        "reached >= threshold": "reached > threshold",
        "iou.argmax(axis=1)": "iou.shape[1] - 1 - iou[:, ::-1].argmax(axis=1)",
        "len(np.unique(best[reached >= threshold]))": "len(best[reached >= threshold])",
        "predicted.labels[:, None] == true.labels": "predicted.labels[:, None] >= 0",
        "segments.labels != label": "segments.labels == label",
        "labels[1:] != labels[:-1]) + 1": "labels[1:] != labels[:-1])",
        "len(predicted) - hits, len(true) - hits": "len(true) - hits, len(predicted) - hits",
    }),
    *mutants("common/scoring/video_score.py", f"{SCORING}/test_video_score.py {SCORING}/test_protocols.py", {
        "if not rule.background:": "if rule.background:",
        "np.abs(starts - start).min()": "np.abs(starts - start).max()",
        "np.where(self.counts, self.predicted, IGNORED)": "self.predicted",
        "earlier[2] == later[1]": "True",
        "(true != IGNORED) & (true != self.predicted)": "self.true != self.predicted",
    }),
    *mutants("common/scoring/further_measures.py", f"{SCORING}/test_further_measures.py", {
        "max(start - tolerance_frames, 0)": "start",
        "end + tolerance_frames": "end",
        "score.confusion.sum(-1) > 0": "score.confusion.sum(-1) >= 0",
        "round(seconds * score.fps)": "round(seconds)",
    }),
    *mutants("common/scoring/protocols.py", f"{SCORING}/test_protocols.py", {
        "SegmentRule(background=False, ": "SegmentRule(background=True, ",
        'segment_rule=SegmentRule(background=True, last_segment="fixed")': 'segment_rule=SegmentRule(background=True, last_segment="legacy")',
        "sums[..., 0] / sums[..., 1]": "sums[..., 0]",
    }),
]  # fmt: skip

STATISTICS = [
    *mutants("common/scoring/intervals.py", f"{SCORING}/test_intervals.py", {
        "np.where(tied, 0.5, defined < estimate)": "np.where(tied, 0.0, defined < estimate)",
        "1 - acceleration * shift": "1 + acceleration * shift",
        "bias + shift / (": "shift / (",
        "(6 * np.sum(influence**2) ** 1.5)": "(np.sum(influence**2) ** 1.5)",
        "defined.mean() - defined": "defined - defined.mean()",
        "np.add.at(sums, [places[group] for group in groups], values)": "sums[[places[group] for group in groups]] += values",
        "len(defined) < confidence * len(drawn)": "len(defined) == 0",
        "return min(float(low), estimate), max(float(high), estimate)": "return float(low), float(high)",
        "np.array([1 - confidence, 1 + confidence]) / 2": "np.array([1 - confidence, confidence])",
        "total - sums": "sums",
    }),
    *mutants("common/scoring/significance.py", f"{SCORING}/test_significance.py", {
        "(as_large + 1) / (draws + 1)": "as_large / draws",
        "2**num_units <= draws + 1": "2**num_units <= draws",
        "2 / 2**num_units if": "1 / 2**num_units if",
        "else 1 / (draws + 1)\n": "else 1 / draws\n",
        " - ROUNDING * np.abs(sums).sum(axis=0)": "",
        "np.arange(len(order), 0, -1)": "np.full(len(order), len(order))",
        "np.maximum.accumulate(factors * p_values[order])": "factors * p_values[order]",
        "1 / num_folds + ratio": "1 / num_folds",
        "not adjusted_p[pair] < alpha": "not adjusted_p[pair] <= alpha",
        "spread / (count - 1)": "spread / count",
        "- residual / num_seeds": "- residual / num_folds",
        "float(np.maximum(variance, 0))": "float(variance)",
        "2 * stdtr(num_folds - 1, -t)": "stdtr(num_folds - 1, -t)",
    }),
]  # fmt: skip

FEATURES = [
    *mutants("common/features/streams.py", "tests/common/features/test_streams.py", {
        "return self.clip_len // 2 if": "return (self.clip_len - 1) // 2 if",
        "frame + after < len(seconds)": "frame + after <= len(seconds)",
        "after * self.spacing <= seconds[-1]": "after * self.spacing / 2 <= seconds[-1]",
        "max(0, frame - self.position)": "max(0, frame - self.position + 1)",
        "seconds[frame] - self.position * self.spacing) - 1": "seconds[frame] - self.position * self.spacing)",
        "shares[:] = 0": "pass",
        "if self.skipped is not None:": "if False:",
        "np.arange(1, row - before, dtype=np.float32)": "np.arange(0, row - before - 1, dtype=np.float32)",
        "np.minimum(position + 1, clip_len - position)": "np.minimum(position, clip_len - position)",
        "self._evaluate(max(0, self.count - self.clip_len))": "self._evaluate(self.next_start)",
        "features[position // self.tubelet]": "features[position // 2]",
        "point - earlier <= time - point + EQUALLY_NEAR_SECONDS": "point - earlier < time - point - EQUALLY_NEAR_SECONDS",
        "/ self.spacing - 0.5)": "/ self.spacing)",
        "self.batch_size //= 2": "self.batch_size = 1",
    }),
    *mutants("common/video/timeline.py", "tests/common/video/test_timeline.py", {
        "points - seconds[left] - EQUALLY_NEAR_SECONDS": "points - seconds[left] + EQUALLY_NEAR_SECONDS",
        "reach = (held[1].seconds + frame.seconds) / 2": "reach = frame.seconds",
        "held[1].seconds + gap / 2": "held[1].seconds + gap",
        "<= reach + EQUALLY_NEAR_SECONDS": "<= reach",
        "min(self.period, ahead / 2)": "self.period",
        'side="right") - 1, 0)': 'side="left") - 1, 0)',
        "self.former, self.offset = self.offset, self.last + step - raw": "pass",
        "self.offset, self.former, step = self.former, self.offset, other": "pass",
    }),
    *mutants("common/features/files.py", "tests/common/features/test_files.py", {
        "self.path.unlink(missing_ok=True)\n        write_json": "write_json",
        "if not np.isfinite(stored).all():": "if np.isnan(stored).any():",
        'if sidecar and list(array.shape) != sidecar["shape"]:': "if False:",
        'len(timeline.sampled) != sidecar["shape"][1]': "False",
        'sidecar.get("frames_fps") != frames_fps': "False",
        "and same_network\n": "\n",
        'and _are_same_weights(was.get("adapter"), now.get("adapter"))': "",
        "cached_fingerprint(video) != fingerprint": "False",
        'if self.sidecar and self._content_sha256() != self.sidecar["sha256"]:': "if False:",
    }),
    *mutants("common/base/files.py", "tests/common/base/test_files.py", {
        "os.fsync(stream.fileno())": "pass",
        "os.replace(temporary, path)": "shutil.copyfile(temporary, path)",
        "array.offset + array.nbytes != size": "array.offset + array.nbytes > size",
        "json.dumps(content, sort_keys=True, allow_nan=False)": "json.dumps(content, allow_nan=False)",
    }),
]  # fmt: skip

FOLDS = mutants("common/dataset/kfold.py", "tests/common/dataset/test_kfold.py", {
    "write_json(dataset.folds_record, unfinished)": "dataset.folds_record.unlink(missing_ok=True)",
    "(-len(groups[name]), stratum(": "(len(groups[name]), stratum(",
    "(dealt[fold][stratum(members)], len(folds[fold]), fold)": "(len(folds[fold]), fold)",
    "_shuffling_key(seed, name)": "_shuffling_key(name)",
    "sorted(videos):\n        groups.setdefault": "videos:\n        groups.setdefault",
    "if set(counts) != labelled:": "if not set(counts) <= labelled:",
    "labelled - set(test):": "labelled:",
    "if len(numbers) > 1": "if len(numbers) > 2",
    "[sorted(fold) for fold in folds])": "[list(fold) for fold in folds])",
    "max(1, round(fraction * len(videos)))": "round(fraction * len(videos))",
    "_shuffling_key(seed, draw, video)": "_shuffling_key(seed, video)",
    "if lag >= enough": "if lag >= 0",
    "!= number:": "== 0:",
    "if record.get(\"unfinished\"):\n        raise": "if False:\n        raise",
})  # fmt: skip

LOSSES = [
    *mutants("common/head/losses.py", "tests/common/head/test_losses.py", {
        "T_MSE_CLAMP = 16.0": "T_MSE_CLAMP = 4.0",
        "log_p.detach()[:, :, :-1]": "log_p[:, :, :-1]",
        "negative_log_p).sum() / weights.sum()": "negative_log_p).sum() / valid.sum()",
        "valid[:, 1:] & valid[:, :-1]": "valid[:, 1:]",
        'reduce="amin"': 'reduce="prod"',
        "per_frame * weights[:, 1:]": "per_frame * weights[:, :-1]",
        "frame[:, None] + 1 + torch.arange": "frame[:, None] + torch.arange",
        "per_frame.sum() / valid.sum().clamp(min=1)": "per_frame.sum() / valid.numel()",
        "torch.cat((ramp, ramp.flip(0)))": "torch.cat((ramp, ramp))",
        "F.log_softmax(stages.float(), dim=2)": "F.log_softmax(stages, dim=2)",
    }),
    *mutants("common/head/networks/fused.py", "tests/common/head/networks/test_fused.py", {
        "2 ** torch.arange(8)": "2 ** torch.arange(7, -1, -1)",
        "by_x[..., taps.left : taps.left + x.shape[-1]]": "by_x[..., : x.shape[-1]]",
        "hidden, of_narrow[layer]), hidden, 0)": "hidden, of_narrow[layer]), grad, 0)",
        "onto = by_x if onto is None else by_x.add_(onto)": "onto = by_x",
        "torch.addmm(onto, seen_by, back)": "seen_by @ back",
        "[-offset for offset in offsets]": "offsets",
        "if abs(offset) < length": "if abs(offset) < length // 2",
        "let_through(grad, kept_part, 0).mul_(KEEP_SCALE)": "let_through(grad, kept_part, 0)",
        "rows = slice(first * channels, past * channels)": "rows = slice(first * channels, (past + 1) * channels)",
        "back[rows], grad.t() @ seen": "back[rows], grad.t() @ seen[:, :1]",
    }),
    *mutants("common/head/networks/layers.py", "tests/common/head/networks/test_fused.py", {
        "[KEEP_SCALE * each for": "[each for",
    }),
    *mutants("common/head/networks/mstcn.py", "tests/common/head/networks/test_fused.py", {
        "biases = biases + (half @": "biases = biases - (half @",
        "itself + other[:, :, 1:2]": "itself",
    }),
    *mutants("common/head/networks/layers.py", "tests/common/head/networks/test_layers.py", {
        "part.data = place": "place.copy_(part)",
        "whole.mT.contiguous() if": "whole.contiguous() if",
        "if id(each) not in in_stages": "if each.dim() > 1",
        ".data_ptr() != whole.data_ptr()": ".data_ptr() == 0",
    }),
    *mutants("common/head/training.py", "tests/common/head/networks/test_layers.py", {
        "tensor.clone(memory_format=torch.contiguous_format)": "tensor",
        "each.apart(value) if name in MOMENTS": "each.apart(value * 0) if name in MOMENTS",
        'by_part[of_each[0]]["step"]}': 'by_part[of_each[0]]["step"] * 0}',
    }),
    *mutants("pretrain/objectives/losses.py", f"{OBJECTIVES}/test_losses.py", {
        "same_kind.masked_fill(itself, 0).sum()": "same_kind.sum()",
        "/ (global_pairs + local_pairs)": "/ (global_pairs + local_weight * local_pairs)",
        "weights).sum() / num_crops": "weights).sum() / weights.sum()",
        "similarity.diagonal(first).fill_(-torch.inf)": "similarity.diagonal(first)",
        "F.normalize(features.float(), dim=-1)\n    return unit": "features.float()\n    return unit",
        "/ student.shape[1]": "/ student.shape[0]",
        'mode="bicubic"': 'mode="bilinear"',
        "rank() // size * size, world_size() - size": "rank() // size * size, world_size()",
        "(rank() - start) * len(own)": "rank() * len(own)",
    }),
    *mutants("pretrain/objectives/latent_losses.py", f"{OBJECTIVES}/test_latent_losses.py", {
        "F.layer_norm(gather_tokens(teacher.float(), places), teacher.shape[-1:])": "gather_tokens(teacher.float(), places)",
        ".mean() / exponent": ".mean()",
        "torch.std_mean(tokens, dim=2, keepdim=True)": "torch.std_mean(tokens, dim=2, keepdim=True, correction=0)",
        "permute(0, 1, 4, 6, 2, 5, 7, 3)": "permute(0, 1, 4, 6, 2, 7, 5, 3)",
    }),
    *mutants("pretrain/objectives/centering.py", f"{OBJECTIVES}/test_centering.py", {
        "iterations: int = 3": "iterations: int = 1",
        "(1 - self.momentum) * (count > 0)": "self.momentum * (count > 0)",
        "(scores - self.center) / temperature": "scores / temperature - self.center",
    }),
    *mutants("pretrain/objectives/schedules.py", f"{OBJECTIVES}/test_schedules.py", {
        "max(self.steps - self.reaches_end, 1)": "max(self.steps, 1)",
        "TRUNCATED_HORIZON = 1.25": "TRUNCATED_HORIZON = 1.0",
        "self.then(step - self.steps)": "self.then(step)",
        "Linear(peak, end, max(steps, 0))": "Linear(peak, end, total_steps)",
    }),
]  # fmt: skip

MASKS = [
    *mutants("pretrain/objectives/masks_image.py", f"{OBJECTIVES}/test_masks_image.py", {
        "min(left, mask.numel() / 2)": "left",
        "left = count - int(mask.sum())": "left -= int(mask[rectangle].sum())",
        "width * (i + 1) / num_masked": "width * i / num_masked",
        "LOWEST_ASPECT ** (1 - 2 * aspect_draw)": "LOWEST_ASPECT + aspect_draw * (1 / LOWEST_ASPECT - LOWEST_ASPECT)",
        "int(share * count + 1e-6)": "int(share * count)",
        "(1 / counts).expand_as": "(1 / counts.sum()).expand_as",
        "rows >= height or columns >= width": "rows > height or columns > width",
        '"patches", crop)': '"patches")',
        '"mask", first, "counts"': '"mask", "counts"',
    }),
    *mutants("pretrain/objectives/masks_video.py", f"{OBJECTIVES}/test_masks_video.py", {
        '"tube", sample)': '"tube")',
        "visible.repeat(1, grid[0])": "visible.repeat_interleave(grid[0], dim=1)",
        "chosen.cumsum(dim=1) <= count": "chosen.cumsum(dim=1) < count",
        "whole_share(1 - self.mask_ratio, num_tokens)": "whole_share(self.mask_ratio, num_tokens)",
        "round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))": "round(math.sqrt(area / aspect)), round(math.sqrt(area * aspect))",
        '"long", num_blocks=2, spatial_scale=0.7': '"long", num_blocks=2, spatial_scale=0.6',
        "torch.randint(g - s + 1, ()": "torch.randint(max(g - s, 1), ()",
        "_first(~outside, num_target)": "~outside",
    }),
]  # fmt: skip

RECIPES = [
    *mutants("pretrain/vjepa2_predictor.py", "tests/pretrain/test_backbones.py", {
        "2 * (int(found[1]) + 1)": "2 * int(found[1]) + 1",
        "predictor.embeddings.config.pred_num_mask_tokens = len(tokens)": "len(tokens)",
    }),
    *mutants("pretrain/objectives/heads.py", "tests/pretrain/methods/test_defaults.py", {
        "if self.unit_prototypes:": "if not self.unit_prototypes:",
    }),
    *mutants("pretrain/engine/step.py", "tests/pretrain/engine/test_step.py", {
        "is not None and not self.schedules.clip_each": "is not None",
    }),
    *mutants("pretrain/methods/dino.py", "tests/pretrain/methods/test_defaults.py", {
        "linearly_scaled(options.learning_rate": "2 * linearly_scaled(options.learning_rate",
        "patch_embedding_scale = 1.0": "patch_embedding_scale = 0.2",
        "drop_path_rises = True": "drop_path_rises = False",
        "clip_each=True": "clip_each=False",
    }),
    *mutants("common/encoders/families/videomae.py", "tests/common/encoders/families/test_videomae.py", {
        ".get(SPACE_TIME, architecture.space_time_positions)": ".get(SPACE_TIME, False)",
    }),
]  # fmt: skip

SAMPLING = mutants("pretrain/video_data/sampling.py", "tests/pretrain/video_data/test_sampling.py", {
    "size**alpha for": "size for",
    "size**cluster_alpha for": "size for",
    "room = max(0.0, 1 - clip_seconds / duration)": "room = 1.0",
    "abs((instant + duration) % (2 * duration) - duration)": "min(max(instant, 0), duration)",
    "generator=random).item() - 0.5)": "generator=random).item())",
    "generator=random if near is None else near": "generator=random",
    "(global_batch * self.world_size + self.rank)": "(global_batch + self.rank)",
    "min(segment.end_seconds, video.duration_seconds)": "segment.end_seconds",
    "video.start_seconds + instant * room": "instant * room",
    "self.starts[index] + position - before": "self.starts[index] + position",
})  # fmt: skip

PACKED = mutants("pretrain/video_data/packed.py", "tests/pretrain/video_data/test_packed.py", {
    "np.ceil((seconds - start - EQUALLY_NEAR_SECONDS) * fps - 0.5)": "np.floor((seconds - start) * fps)",
    "nearest_in_time(self.seconds, self.on_grid(seconds))": "nearest_in_time(self.seconds, seconds)",
    "(header.name, header.size) != (name, size)": "header.size != size",
    "(offsets + sizes <= shard.size_bytes)": "(sizes > 0)",
    "(np.diff(seconds) <= 0).any()": "False",
    "size != record[\"bytes\"]": "False",
    "width * height > MOST_PIXELS": "False",
    "cv2.COLOR_BGR2RGB": "cv2.COLOR_BGR2YCrCb",
    "found != expected:": "False:",
})  # fmt: skip

DECODING = mutants("common/head/networks/viterbi.py", "tests/common/head/networks/test_viterbi.py", {
    "segments.sum() / (frames.sum() + 1)": "segments.sum() / frames.sum()",
    "1 / max(num_classes - 1, 1)": "1 / num_classes",
    "(starts + 1 / num_classes) / (num_videos + 1)": "starts / num_videos",
    "counts[1:] & counts[:-1] & differs[1:]": "counts[1:] & differs[1:]",
    "np.log(transitions.leave)[:, None] + np.log(transitions.change)": "np.log(transitions.change)",
    "np.log1p(-transitions.leave)": "np.log(transitions.leave)",
    "scores[:, None] + steps": "scores[:, None] + steps.T",
    "np.log(transitions.start) + log_probabilities[0]": "log_probabilities[0]",
    "before[frame, path[frame]]": "before[frame - 1, path[frame]]",
})  # fmt: skip

RANKS = mutants("common/scoring/ranks.py", f"{SCORING}/test_ranks.py", {
    "1 + better.sum(axis=-1) + (equal.sum(axis=-1) - 1) / 2": "1 + better.sum(axis=-1)",
    "1 - 1 / (num_sets * shared + own + 1)": "1 - 1 / (shared + own + 1)",
    "max(LEAST_KEPT, 1 - 1 / (own + 1))": "1.0",
    "own = max(0.0, in_sets - 1)": "own = max(0.0, in_sets)",
    "np.sqrt(keep_common) * shared_noise": "shared_noise",
    "keep_own * (found - common)": "(found - common)",
    "noise - noise.mean(axis=2, keepdims=True)": "noise",
    "2 * (np.array(fewer) + 1) / (len(ranks) + 1)": "2 * np.array(fewer) / len(ranks)",
    "np.count_nonzero(one, axis=1) * np.count_nonzero(other, axis=1)": "one.shape[1] * other.shape[1]",
})  # fmt: skip

LEAKS = [
    *mutants("common/checks/leaks.py", "tests/common/checks/test_leaks.py", {
        "video.size_bytes for video in manifest.videos": "video.size_bytes + 1 for video in manifest.videos",
        "same | (absent & names)": "same | names",
        "if video.corpus.lower() == dataset.name.lower()": "if True",
        "if video in scored)": ")",
        "set(leaked).difference(*parts.values())": "set(leaked)",
    }),
    *mutants("common/reports/caveats.py", "tests/common/dataset/test_seen.py", {
        "if name not in seen}": "if name in seen}",
        'split.record | {"videos": list(scores), ': "split.record | {",
        "set() if leak.part.is_counted_only else set(leak.videos)": "set()",
        "if not splits:\n            raise": "if False:\n            raise",
    }),
]  # fmt: skip

TRANSFER = mutants("common/head/transfer.py", "tests/common/head/test_transfer.py", {
    "summed[:, place] += rows[:, phase]": "summed[:, place] = rows[:, phase]",
    "np.divide(summed, total, ": "np.divide(summed, 1.0, ",
    "name in pairs.values() and name not in test.ignored": "name in pairs.values()",
    "places.get(pairs.get(name, \"\"), IGNORED)": "places.get(name, IGNORED)",
    "if len(scored) < 2:": "if len(scored) < 1:",
    "[score for score in scores.values() if score.counts.any()]": "list(scores.values())",
})  # fmt: skip

SPLITS = mutants("common/dataset/split_lists.py", "tests/common/dataset/test_split_lists.py", {
    "if where.setdefault(video, part) != part:": "if False:",
    "if video not in there:": "if False:",
    "[sorted(train), sorted(test)] for train": "[sorted(test)] for train",
    "set(range(1, count + 1)) or not count": "set(range(1, count + 1))",
    'if strange := numbers["val"] - numbers["test"]:': "if strange := set():",
    "sum(map(len, self.tests)) > len(": "sum(map(len, self.tests)) >= len(",
})  # fmt: skip

LOCKS = mutants("common/base/locks.py", "tests/common/base/test_locks.py", {
    "if is_still(path, handle):\n                os.ftruncate": "if True:\n                os.ftruncate",
    "            if not _is_stale(path):  # somebody was faster, and this is the new owner's\n                return None\n": "",
    "if is_still(path, handle):  # an owner that slept": "if True:  # an owner that slept",
    "TOUCH_SECONDS, STALE_SECONDS = 60.0, 600.0": "TOUCH_SECONDS, STALE_SECONDS = 60.0, 60.0",
})  # fmt: skip

LIVE = [
    *mutants("common/head/networks/lookahead.py", "tests/common/head/networks/test_lookahead.py", {
        "limits = [min(low, reach) for reach in reaches]": "limits = [low for reach in reaches]",
        "left = frames - sum(limits)": "left = frames",
        "if left and reach > low:": "if left:",
        "            left -= 1\n": "",
    }),
    *mutants("common/head/live/online.py", "tests/common/head/live/test_online.py", {
        "kept[(newest - tap) % length]": "kept[(newest - tap + 1) % length]",
        "if newest < self.late:": "if newest < self.late - 1:",
        "kept[(newest - self.late) % length]": "x",
        "for _ in range(step.late):": "for _ in range(1):",
        "max(first.span, second.span) + 1": "max(first.span, second.span)",
        "late - conv.future + before": "late + before",
        "new = np.tanh(of_input[2] + reset * of_state[2])": "new = np.tanh(of_input[2] + of_state[2])",
        "(1 - update) * new + update * self._hidden": "update * new + (1 - update) * self._hidden",
        "(x - self._mean) / self._deviation": "x - self._mean",
    }),
    *mutants("common/head/live/timing.py", "tests/common/head/live/test_timing.py", {
        "number % self.sample_rate == 0": "True",
        "is_chosen and index % self.every == 0, is_labelled": "is_chosen, is_labelled",
        "seconds - held[0][0].seconds - EQUALLY_NEAR_SECONDS": "seconds - held[0][0].seconds + EQUALLY_NEAR_SECONDS",
        "stands or not is_nearer": "not is_nearer",
        "sampled and (stands or bool(labels))": "sampled and stands",
        "seconds * rate + 0.5 + EQUALLY_NEAR_SECONDS": "seconds * rate + EQUALLY_NEAR_SECONDS",
        "if here > newest:": "if here >= newest:",
    }),
    *mutants("common/head/live/session.py", "tests/common/head/live/test_session.py", {
        "range(self.newest + 1, point)": "range(self.newest + 2, point)",
        "delay = max(0.0, last[0] - seconds) + ": "delay = ",
        "yield from self._push(self._row, at, last, is_held=True)": "pass",
    }),
]  # fmt: skip

MUTANTS = [
    *MEASURES, *STATISTICS, *FEATURES, *FOLDS, *LOSSES, *MASKS, *RECIPES, *SAMPLING, *PACKED,
    *DECODING, *RANKS, *LEAKS, *TRANSFER, *SPLITS, *LOCKS, *LIVE,
]  # fmt: skip

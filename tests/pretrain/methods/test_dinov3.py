"""DINOv3: its losses put together, hidden patches, the anchor, several processes."""

import math

import pytest
import torch
import torch.nn.functional as F

from common.base.runtime import UserError
from common.video.preprocess import normalise
from pretrain.engine.monitor import ENTROPY, HealthMonitor
from pretrain.engine.reporting import transformer_flops
from pretrain.methods.dinov3 import PUBLISHED_HEADS, DINOv3, Hidden
from pretrain.methods.options import DINOv3Options
from pretrain.objectives.centering import sinkhorn_knopp
from pretrain.objectives.heads import DINO_7B, IBOT_7B
from pretrain.objectives.losses import gram_loss, koleo_loss, resize_patches
from pretrain.objectives.masks_image import masked_places, patch_weights
from pretrain.ssl_config import find_model
from tests.pretrain.methods import crops
from tests.pretrain.methods.crops import (
    NUM_LOCAL,
    assert_same_change,
    crops_of,
    here,
    losses_on_one_batch,
    method_of,
    options,
    trained,
)

FIRST_PATCH = 5


def apart(method):
    """The method with a teacher that is not its student."""
    with torch.no_grad():
        for parameter in method.teacher.parameters():
            parameter.mul_(1.2)
    return method


# the losses


def patches_of(backbone, pixels, mask=None):
    tokens = backbone(pixels, bool_masked_pos=mask).last_hidden_state
    return tokens[:, 0], tokens[:, FIRST_PATCH:]


def test_the_loss_is_put_together_from_its_parts():
    """Crop by crop, with the published functions where no other form is at hand."""
    weights = {
        "ibot_weight": 0.7,
        "koleo_weight": 0.2,
        "local_weight": 0.5,
        "gram_weight": 1.5,
        "gram_ramp_epochs": 0.0,
    }
    method, batch = apart(method_of(options(**weights))), crops_of(8, 4, gram_size=128)
    student, teacher, temperature = method.student, method.teacher, method.temperature(3)
    views = {
        name: normalise(batch[name], method.preprocessing) for name in ("global_crops", "local_crops", "gram_crops")
    }
    hidden = method.hidden_patches(8, 4, torch.device("cpu"))
    masks = hidden.masks.view(2, 4, -1)
    with torch.no_grad():
        outputs = [patches_of(teacher["backbone"], views["global_crops"][:, view]) for view in range(2)]
        classes = torch.cat([teacher["dino_head"](token) for token, _ in outputs])
        targets = sinkhorn_knopp(classes, temperature).chunk(2)
        patches = torch.cat(
            [teacher["ibot_head"](patch[mask]) for (_, patch), mask in zip(outputs, masks, strict=True)]
        )
        patch_targets = sinkhorn_knopp(patches, temperature)
        seen = [patches_of(student["backbone"], views["global_crops"][:, view], masks[view]) for view in range(2)]
        parts = {name: [] for name in ("global", "local", "ibot", "koleo", "gram")}
        for view, (token, patch) in enumerate(seen):
            parts["global"].append(F.cross_entropy(student["dino_head"](token) / 0.1, targets[1 - view]))
            parts["koleo"].append(koleo_loss(token))
            anchor = patches_of(method.gram_teacher, views["gram_crops"][:, view])[1]
            parts["gram"].append(gram_loss(patch, resize_patches(anchor, (8, 8), (4, 4))))
            for image, mask in zip(patch, masks[view], strict=True):
                count = int(mask.sum())
                own, patch_targets = patch_targets[:count], patch_targets[count:]
                if count:
                    parts["ibot"].append(F.cross_entropy(student["ibot_head"](image[mask]) / 0.1, own))
        for crop in views["local_crops"].unbind(1):
            logits = student["dino_head"](patches_of(student["backbone"], crop)[0]) / 0.1
            parts["local"] += [F.cross_entropy(logits, target) for target in targets]
    sums = {name: torch.stack(values).sum() for name, values in parts.items()}
    assert not len(patch_targets)
    assert len(parts["ibot"]) == 4  # of 8 crops
    expected = (sums["global"] + 0.5 * sums["local"]) / (2 + 2 * NUM_LOCAL)
    expected += 0.7 * sums["ibot"] / 8 + 0.2 * sums["koleo"] + 1.5 * sums["gram"] / 2
    found = method(batch, 3)
    torch.testing.assert_close(found["loss"].detach(), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found["loss/gram"], sums["gram"] / 2, rtol=1e-5, atol=1e-6)
    assert not any(value.requires_grad for name, value in found.items() if name != "loss")


def test_names_are_those_of_the_losses_in_use():
    plain = {"loss", ENTROPY, "loss/global_crops", "loss/local_crops", "loss/ibot"}
    assert set(method_of(options(koleo_weight=0.0))(crops_of(0, 1), 0)) == plain
    given = options(gram_weight=1.0)
    assert set(method_of(given)(crops_of(0, 2, gram_size=128), 0)) == plain | {"loss/koleo", "loss/gram"}


@pytest.mark.parametrize("mask_share", [0.5, 0.0])
def test_the_student_gets_gradients_everywhere_and_nothing_else_any(mask_share):
    method = method_of(options(mask_share=mask_share, gram_weight=1.0))
    method(crops_of(0, 4, gram_size=128), 2)["loss"].backward()
    missing = [name for name, part in method.student.named_parameters() if part.grad is None]
    zero = {name for name, part in method.student.named_parameters() if not part.grad.abs().sum() > 0}
    assert missing == []
    heads = {name for name, _ in method.student.named_parameters() if name.startswith("ibot_head")}
    assert zero == (set() if mask_share else heads | {"backbone.embeddings.mask_token"})
    frozen = [*method.teacher.parameters(), *method.gram_teacher.parameters()]
    assert all(part.grad is None and not part.requires_grad for part in frozen)


def test_koleo_needs_company():
    with pytest.raises(UserError, match="raise the batch size, or set its weight to 0"):
        method_of(options())(crops_of(0, 1), 0)


def test_steps_on_made_frames_lower_the_loss():
    given = options(momentum=0.9, layer_decay=1.0, batch_size=8, warmup=0.0, learning_rate=3e-3)
    losses = losses_on_one_batch(given, steps=12)
    assert max(losses[-3:]) < losses[0] - 0.2


def test_a_collapse_is_noticed():
    """A backbone that says the same of every frame, under targets that are forced apart."""
    method, batch, monitor = method_of(options()), crops_of(0, 8), HealthMonitor()
    with torch.no_grad():
        monitor.check(0, method.features(batch))
        method.exported().embeddings.patch_embeddings.weight.zero_()
        for step in (1, 2, 3):
            assert not monitor.has_collapsed
            monitor.check(step, method.features(batch))
    assert monitor.has_collapsed


# hidden patches


def test_what_is_hidden_does_not_reach_the_student():
    method, batch = method_of(options()), crops_of(0, 4)
    seen = {}
    for networks, name in ((method.student, "student"), (method.teacher, "teacher")):
        networks["backbone"].norm.register_forward_hook(  # the last layer
            lambda network, inputs, output, name=name: seen.setdefault(name, []).append(output)
        )
    method(batch, 0)
    masks = method.hidden_patches(0, 4, torch.device("cpu")).masks.view(2, 4, 4, 4).transpose(0, 1)
    places = masks.repeat_interleave(16, 2).repeat_interleave(16, 3)[:, :, None]
    changed = batch | {"global_crops": torch.where(places, 255 - batch["global_crops"], batch["global_crops"])}
    method(changed, 0)
    (before, _, after, _), (whole, other) = seen["student"], seen["teacher"]
    assert places.any()
    assert torch.equal(before, after)
    assert not torch.equal(whole, other)


def test_half_of_the_global_crops_hide_a_tenth_to_a_half_and_every_batch_other_places():
    method = method_of(options(crop_size=224, local_size=96))
    hidden = method.hidden_patches(0, 8, torch.device("cpu"))
    counts = hidden.masks.sum(1)
    assert hidden.masks.shape == (16, 196)
    assert sorted(counts.tolist()) == [0] * 8 + [int(196 * (0.1 + 0.05 * share)) for share in range(1, 9)]
    assert torch.equal(hidden.places, hidden.masks.flatten().nonzero().squeeze(1))
    torch.testing.assert_close(hidden.weights.sum(), torch.tensor(8.0))
    again, later = (method.hidden_patches(first, 8, torch.device("cpu")).masks for first in (0, 8))
    assert torch.equal(again, hidden.masks)
    assert not torch.equal(later, hidden.masks)


# the anchor


def test_the_anchor_is_the_start_and_stays_it():
    given = options(gram_weight=1.0, gram_scale=1, gram_ramp_epochs=0.0, mask_share=0.0, learning_rate=0.01)
    method = method_of(given)
    start = {name: value.clone() for name, value in method.student["backbone"].state_dict().items()}
    batch = crops_of(0, 4)
    batch["gram_crops"] = batch["global_crops"]
    assert method(batch, 0)["loss/gram"].item() == pytest.approx(0.0, abs=1e-9)
    with torch.no_grad():
        for parameter in method.student["backbone"].parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    assert method(batch, 0)["loss/gram"] > 1e-4
    assert all(torch.equal(value, start[name]) for name, value in method.gram_teacher.state_dict().items())
    assert not method.gram_teacher.training
    assert {parameter.requires_grad for parameter in method.gram_teacher.parameters()} == {False}


def test_the_anchor_s_weight_rises_once_the_backbone_learns():
    given = options(gram_weight=2.0, freeze_backbone_epochs=0.4, gram_ramp_epochs=0.6)
    weights = [method_of(given).gram_schedule(step) for step in range(6)]
    assert weights == pytest.approx([0, 0, 0, 1, 2, 2])


def test_untrained_start_weights_are_no_anchor_unless_asked_for():
    model = find_model("dinov3-tiny")
    for given, weight, size in (
        (options(), 0.0, None),
        (options(gram_weight=0.5), 0.5, 128),
        (options(init="some/folder"), 1.0, 128),
        (options(init=None, gram_scale=3), 1.0, 192),
        (options(init=None, gram_weight=0.0), 0.0, None),
    ):
        assert (given.anchor_weight, given.gram_size_of(model)) == (weight, size)
    assert method_of(options()).gram_teacher is None


# options


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("local_weight", -1.0, "not be negative"),
        ("ibot_weight", -1.0, "not be negative"),
        ("koleo_weight", float("nan"), "not be negative"),
        ("gram_weight", -1.0, "not be negative"),
        ("gram_ramp_epochs", -1.0, "not be negative"),
        ("mask_share", 1.5, "between 0 and 1"),
        ("gram_scale", 0, "at least 1"),
        ("position_rescale", 0.5, "at least 1"),
    ],
)
def test_options_that_cannot_be_are_refused(name, value, message):
    with pytest.raises(UserError, match=f"{name} must.*{message}, found {value}"):
        DINOv3Options(**{name: value})


def test_the_model_decides_the_recipe_where_options_do_not():
    dinov3, caformer = find_model("dinov3-l"), find_model("caformer-s18")
    assert [DINOv3Options().recipe_of(model) for model in (dinov3, caformer)] == ["dinov3", "dino"]
    assert DINOv3Options(recipe="dino").recipe_of(dinov3) == "dino"
    assert DINOv3Options(recipe="dino").gram_size_of(dinov3) is None
    with pytest.raises(UserError, match="caformer-s18 takes --recipe dino"):
        DINOv3Options(recipe="dinov3").recipe_of(caformer)
    with pytest.raises(UserError, match="--ibot_weight, --gram_scale: of the recipe dinov3"):
        DINOv3Options(ibot_weight=0.5, gram_scale=1, recipe="dino").recipe_of(dinov3)


def test_the_largest_network_has_heads_of_its_own():
    assert PUBLISHED_HEADS[find_model("dinov3-7b").architecture] == (DINO_7B, IBOT_7B)


# positions


def test_positions_are_rescaled_for_the_student_alone():
    batch = crops_of(0, 4)
    for rescale, differ in ((2.0, True), (1.0, False)):
        method = method_of(options(position_rescale=rescale))
        torch.manual_seed(0)
        pixels = method.crops(batch["global_crops"])
        for networks, differs in ((method.student, differ), (method.teacher, False)):
            one, other = (networks["backbone"](pixels).last_hidden_state for _ in range(2))
            assert torch.equal(one, other) != differs


def test_the_operations_are_those_of_all_crops():
    method = method_of(options(gram_weight=1.0))
    blocks = sum(part.numel() for part in method.student["backbone"].model.layer.parameters())

    def flops(tokens, backward=True):
        return transformer_flops(blocks, tokens, num_layers=2, width=48, backward=backward)

    crops = 2 * flops(16 + 5) + NUM_LOCAL * flops(4 + 5)
    frozen = 2 * flops(16 + 5, backward=False) + 2 * flops(64 + 5, backward=False)
    assert method.flops_per_sample() == crops + frozen


# several processes


MORE = {"koleo_neighbours": 4, "gram_weight": 1.0, "gram_ramp_epochs": 0.0, "learning_rate": 1e-3, "warmup": 0.0}


class InHalves(DINOv3):
    """Hides in a batch what two processes with half of it each would hide: shares are exact in each half."""

    def hidden_patches(self, first, batch_size, device):
        half = batch_size // 2
        parts = [super(InHalves, self).hidden_patches(first + own, half, device).masks for own in (0, half)]
        # of either half by view, then sample: so stand the crops of the whole
        masks = torch.cat([part.view(2, half, -1) for part in parts], dim=1).flatten(0, 1)
        return Hidden(masks, masked_places(masks), patch_weights(masks))


def test_two_processes_train_on_the_mean_of_their_losses(two, monkeypatch):
    """What the recipe promises: one batch for centering and neighbours, masks of each process's own."""
    with monkeypatch.context() as patch:
        patch.setattr(crops, "DINOv3", InHalves)
        alone = trained(options(batch_size=4, **MORE), 2, 128)
    for sharding in ("ddp", "fsdp"):
        first, second = two(trained, options(batch_size=2, sharding=sharding, **MORE), 2, 128)
        assert first[0] == second[0]
        for found, expected in zip(first[0], alone[0], strict=True):
            assert found == pytest.approx(expected, rel=1e-4)
        assert_same_change(first[1], alone[1], method_of(options(**MORE)))


def test_recomputed_blocks_change_nothing(two):
    plain = trained(options(**MORE), 2, 128)
    again = trained(options(gradient_checkpointing="all", **MORE), 2, 128)
    assert again[0] == [pytest.approx(record, rel=1e-5) for record in plain[0]]
    assert_same_change(again[1], plain[1], method_of(options(**MORE)))


def test_a_process_hides_half_of_its_own_crops_whoever_else_trains(two):
    for rank, masks in enumerate(two(masks_in, 12)):
        assert torch.equal(masks, method_of(options()).hidden_patches(12 + 2 * rank, 2, torch.device("cpu")).masks)
        assert sorted(masks.sum(dim=1).tolist()) == [0, 0, 4, 8]  # int(0.3 * 16), int(0.5 * 16)


def masks_in(first: int):
    """This process's masks of 2 of the 4 samples from `first` on."""
    return method_of(options()).hidden_patches(first + 2 * here().rank, 2, torch.device("cpu")).masks


def test_targets_leave_no_prototype_out():
    """By Sinkhorn-Knopp, however alike the teacher's outputs are."""
    method, batch = method_of(options(prototypes=4)), crops_of(0, 8)
    with torch.no_grad():
        tokens = method.teacher["backbone"](method.crops(batch["global_crops"])).last_hidden_state
        hidden = method.hidden_patches(0, 8, torch.device("cpu"))
        classes, patches = method._targets(tokens, hidden, 0.07)
    assert classes.shape == (2, 8, 4)
    torch.testing.assert_close(classes.sum(-1), torch.ones(2, 8))
    assert classes.flatten(0, 1).mean(0).min() > 0.15
    assert patches.shape == (len(hidden.places), 4)
    assert math.isclose(patches.sum().item(), len(patches), rel_tol=1e-5)

"""Every head by the one contract, and those of other authors against their answers."""

import json
from typing import get_args, get_type_hints

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from common.base.runtime import UserError
from common.head.checkpoint import NETWORKS, build_head
from common.head.config import TrainConfig
from common.head.networks.asformer import ASFormer
from common.head.networks.catalogue import HEADS
from common.head.networks.layers import Head
from common.head.networks.tecno import TeCNO

DIM, NUM_CLASSES = 6, 5
WITHOUT_DROPOUT = {"linear"}
ALONE = {"linear"}  # sees no frame but its own
SMALL = {
    "mstcn++": {},
    "linear": {},
    "gru": {"hidden": 7, "layers": 2},
    "tecno": {"stages": 2, "layers": 3, "maps": 8},
    "asformer": {"decoders": 2, "layers": 4, "maps": 8},
}
STAGES = {"mstcn++": 3, "linear": 1, "gru": 1, "tecno": 2, "asformer": 3}
CAUSAL = [name for name, kind in HEADS.items() if kind.causality != "never"]
LENGTHS = (50, 31, 1)


def small_head(name: str, *, causal: bool = False, **options) -> Head:
    sizes = {"num_layers_PG": 4, "num_layers_R": 3, "num_R": 2, "num_f_maps": 8, "features_dim": DIM}
    config = TrainConfig(head=name, head_options=SMALL[name] | options, causal=causal, **sizes)
    return build_head(config, NUM_CLASSES).eval()


def features(batch: int, length: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(batch, DIM, length, generator=torch.Generator().manual_seed(seed))


def padded_batch() -> tuple[torch.Tensor, torch.Tensor]:
    """Videos of unequal length as one batch: features, with numbers in the padding, and mask."""
    mask = torch.zeros(len(LENGTHS), 1, max(LENGTHS))
    for item, length in enumerate(LENGTHS):
        mask[item, :, :length] = 1
    return features(len(LENGTHS), max(LENGTHS)), mask


# --- every head ---------------------------------------------------------------------------------------------------


def test_a_head_is_named_in_every_place():
    places = {
        "NETWORKS of common/head/checkpoint.py": NETWORKS,
        "head of TrainConfig in common/head/config.py": get_args(get_type_hints(TrainConfig)["head"]),
        "SMALL of this file": SMALL,
        "STAGES of this file": STAGES,
    }
    everywhere = set(HEADS).union(*places.values())
    for place, names in (places | {"HEADS of common/head/networks/catalogue.py": HEADS}).items():
        assert not everywhere - set(names), (
            f"{place} lacks {', '.join(sorted(everywhere - set(names)))}: put the name there"
        )


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("length", [1, 2, 40])
def test_a_head_gives_logits_of_every_stage_for_every_frame(name, length):
    logits = small_head(name)(features(2, length))
    assert logits.shape == (STAGES[name], 2, NUM_CLASSES, length)
    assert logits.isfinite().all()


@pytest.mark.parametrize("name", HEADS)
def test_a_video_in_a_padded_batch_gets_its_own_outputs_and_padding_none(name):
    head, (x, mask) = small_head(name), padded_batch()
    with torch.no_grad():
        together = head(x, mask)
        for item, length in enumerate(LENGTHS):
            alone = head(x[item : item + 1, :, :length])[:, 0]
            assert torch.allclose(together[:, item, :, :length], alone, atol=2e-5, rtol=0)
            assert not together[:, item, :, length:].any()


@pytest.mark.parametrize("name", HEADS)
def test_a_padded_batch_gives_the_gradients_of_its_videos_alone(name):
    head, (x, mask) = small_head(name), padded_batch()
    head(x, mask).square().sum().backward()
    together = {key: parameter.grad.clone() for key, parameter in head.named_parameters()}
    head.zero_grad()
    for item, length in enumerate(LENGTHS):
        head(x[item : item + 1, :, :length]).square().sum().backward()
    for key, parameter in head.named_parameters():
        scale = max(1.0, parameter.grad.abs().max().item())
        assert torch.allclose(together[key], parameter.grad, atol=1e-4 * scale, rtol=0), key


@pytest.mark.parametrize("name", CAUSAL)
def test_a_causal_head_ignores_later_frames(name):
    head, x = small_head(name, causal=True), features(1, 40)
    changed = x.clone()
    changed[:, :, 25:] += 3
    with torch.no_grad():
        assert torch.allclose(head(x)[..., :25], head(changed)[..., :25], atol=1e-6, rtol=0)
        assert not torch.allclose(head(x)[..., 25:], head(changed)[..., 25:], atol=1e-3)


@pytest.mark.parametrize(
    "name", [name for name, kind in HEADS.items() if kind.causality != "always" and name not in ALONE]
)
def test_a_head_that_is_not_always_causal_sees_later_frames(name):
    head, x = small_head(name), features(1, 40)
    changed = x.clone()
    changed[:, :, 39] += 3
    with torch.no_grad():
        assert not torch.equal(head(x)[..., :39], head(changed)[..., :39])


@pytest.mark.parametrize("name", HEADS)
def test_dropout_of_a_head_is_decided_by_its_generator_alone(name):
    head, (x, mask) = small_head(name).train(), padded_batch()
    before, outputs = torch.get_rng_state(), []
    for seed in (1, 1, 2):
        head.use_dropout_generator(torch.Generator().manual_seed(seed))
        outputs.append(head(x, mask).detach())
    assert torch.equal(outputs[0], outputs[1])
    said = (
        f"{name}: expected other dropout by another seed; a head that has none is named in WITHOUT_DROPOUT of this file"
    )
    assert torch.equal(outputs[0], outputs[2]) == (name in WITHOUT_DROPOUT), said
    assert torch.equal(torch.get_rng_state(), before)


def test_channel_masking_drops_a_dimension_for_a_whole_video():
    head = small_head("asformer", channel_masking=0.5).train()
    head.use_dropout_generator(torch.Generator().manual_seed(3))
    seen = []
    head.encoder.conv_1x1.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    head(torch.ones(4, DIM, 30))
    assert torch.equal(seen[0], seen[0][:, :, :1].expand(-1, -1, 30))
    assert set(seen[0].unique().tolist()) == {0.0, 2.0}


# --- the authors' implementations ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def reference(reference_data):
    """The cases of `heads_reference.json` and its arrays."""
    cases = json.loads((reference_data / "golden" / "heads_reference.json").read_text())["cases"]
    with np.load(reference_data / "golden" / "heads_reference.npz") as arrays:
        return cases, {key: arrays[key] for key in arrays}


def of_authors(case: dict, arrays: dict[str, np.ndarray], dtype: torch.dtype) -> Head:
    """Our network with the parameters of a case, loaded by the authors' names."""
    config, own = case["config"], {}
    if case["head"] == "asformer":
        own = {name: config[name] for name in ("decoders", "layers", "r1", "r2", "maps")}
        head = ASFormer(config["dim"], config["classes"], channel_masking=0.0, window=config["window_mask"], **own)
    else:
        own = {name: config[name] for name in ("stages", "layers", "maps")}
        head = TeCNO(config["dim"], config["classes"], **own)
    prefix = f"{case['state']}/state/"
    state = {key.removeprefix(prefix): torch.from_numpy(v) for key, v in arrays.items() if key.startswith(prefix)}
    head.load_state_dict(state, strict=True)
    return head.to(dtype).eval()


KINDS = {"tecno": ("T1", "T7", "T40", "batch", "gradient_T40")}
KINDS |= {f"asformer_{window}": ("T2", "T7", "T40", "batch", "gradient_T40") for window in ("released", "corrected")}
CASES = [f"{head}_{kind}" for head, kinds in KINDS.items() for kind in kinds]
TOLERANCES = {torch.float64: 1e-10, torch.float32: 2e-5}


def assert_close(ours: torch.Tensor, theirs: np.ndarray, tolerance: float, what: str) -> None:
    difference = np.abs(ours.detach().double().numpy() - theirs).max() / max(1, np.abs(theirs).max())
    assert difference <= tolerance, (what, difference)


@pytest.mark.parametrize("dtype", TOLERANCES, ids=["float64", "float32"])
@pytest.mark.parametrize("name", CASES)
def test_answers_of_the_authors(reference, name, dtype):
    cases, arrays = reference
    case, tolerance = cases[name], TOLERANCES[dtype]
    head = of_authors(case, arrays, dtype)
    x = torch.from_numpy(arrays[f"{name}/input"]).to(dtype).requires_grad_()
    mask = torch.from_numpy(arrays[f"{name}/mask"]).to(dtype) if f"{name}/mask" in arrays else None
    logits = head(x, mask)
    assert_close(logits, arrays[f"{name}/outputs"], tolerance, "logits")
    if "gradient" not in case["kind"]:
        return
    target = torch.from_numpy(arrays[f"{name}/target"])[None]
    losses = [F.cross_entropy(stage, target) for stage in logits]
    assert [loss.item() for loss in losses] == pytest.approx(case["cross_entropy_by_stage"], rel=tolerance)
    sum(losses).backward()
    assert_close(x.grad, arrays[f"{name}/grad_input"], tolerance, "input")
    for key, parameter in head.named_parameters():
        assert_close(parameter.grad, arrays[f"{name}/grad/{key}"], tolerance, key)


def test_every_case_of_these_heads_is_tested(reference):
    cases, _ = reference
    assert {name for name, case in cases.items() if case["head"] in ("tecno", "asformer")} == set(CASES)


def test_published_sizes_have_the_published_parameter_counts(reference_data):
    sizes = json.loads((reference_data / "golden" / "head_sizes.json").read_text())
    names = {"tecno": "tecno", "asformer": "asformer", "bidirectional gru + linear": "gru"}
    counted = 0
    for size in sizes:
        if size["head"] not in names:
            continue
        known = vars(HEADS[names[size["head"]]].options())
        options = {key: value for key, value in size.items() if key in known}
        config = TrainConfig(head=names[size["head"]], head_options=options, features_dim=size["dim"])
        head = build_head(config, size["classes"])
        assert sum(parameter.numel() for parameter in head.parameters()) == size["parameters"], size
        counted += 1
    assert counted == 15


def test_defaults_are_the_authors():
    sizes = {"tecno": 432_102, "asformer": 1_134_476, "gru": 4_734_483}  # 2048 dimensions, 19 phases
    for name, expected in sizes.items():
        head = build_head(TrainConfig(head=name, features_dim=2048), 19)
        assert sum(parameter.numel() for parameter in head.parameters()) == expected


# --- settings -----------------------------------------------------------------------------------------------------


def test_an_unknown_setting_of_a_head_names_the_known_ones():
    with pytest.raises(UserError, match=r"head_options of gru: unknown key 'width'.*known: hidden, layers"):
        TrainConfig(head="gru", head_options={"width": 3})
    with pytest.raises(UserError, match=r"head_options of mstcn\+\+: unknown key 'hidden'"):
        TrainConfig(head_options={"hidden": 3})


@pytest.mark.parametrize(
    ("name", "options"),
    [("gru", {"layers": 0}), ("tecno", {"maps": -1}), ("asformer", {"window": "fixed"}), ("asformer", {"r1": 128})],
)
def test_impossible_settings_of_a_head_are_refused_by_name(name, options):
    with pytest.raises(UserError, match=f"head_options of {name}.*{next(iter(options))}"):
        TrainConfig(head=name, head_options=options)


def test_asformer_cannot_be_causal_and_tecno_always_is():
    with pytest.raises(UserError, match=r"--causal: expected .*tecno.*, found asformer"):
        TrainConfig(head="asformer", causal=True)
    assert TrainConfig(head="tecno").causal


def test_run_names_derive_from_the_head():
    assert TrainConfig().run_name is None
    assert TrainConfig(head="gru").run_name == "head=gru"
    assert TrainConfig(head="gru", causal=True, seed=7).run_name == "head=gru-causal-seed7"
    assert TrainConfig(head="tecno").run_name == "head=tecno"
    changed = TrainConfig(head="asformer", head_options={"layers": 6, "window": "corrected"})
    assert changed.run_name == "head=asformer+layers=6+window=corrected"

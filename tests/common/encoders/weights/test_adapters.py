"""Adapters of `pretrain/`: found with their base, refused on another, merged exactly."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import DINOv3ViTConfig, DINOv3ViTModel

from common.base.files import write_json
from common.base.runtime import UserError
from common.encoders.base import build_encoder, with_values
from common.encoders.config import read_encoder_config
from common.encoders.weights.adapters import apply_adapter, find_adapted, find_export
from common.encoders.weights.find import choose_weights, is_available
from common.features.config import ExtractionConfig, with_options

SIZES = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 96}
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj"]


@pytest.fixture
def config(checkout):
    full = read_encoder_config(checkout / "models" / "DinoV3-ViT-B16-CataractFT" / "config.yaml")
    return replace(full, feature_dim=48, preprocessing=replace(full.preprocessing, size=64))


def write_export(folder, seed: int = 0, **changes) -> DINOv3ViTModel:
    torch.manual_seed(seed)
    model = DINOv3ViTModel(DINOv3ViTConfig(**(SIZES | changes), num_register_tokens=4)).eval()
    model.save_pretrained(folder)
    return model


def write_adapter(folder, base, model: DINOv3ViTModel):
    """A trained adapter (both factors random) as `pretrain/finetune_lora.py` keeps it; returns the peft model."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(7)
    adapted = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules=TARGETS)).eval()
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    adapted.save_pretrained(folder)
    export = find_export(str(base))
    facts = {"base_checkpoint": str(base), "base_sha256": export.sha256, "model": "dinov3-b"}
    write_json(folder / "provenance.json", facts)
    return adapted


@pytest.fixture
def trained(tmp_path):
    """An export with its `final.pt`, and an adapter on it."""
    base, adapter = tmp_path / "ssl" / "dinov3-vitb16", tmp_path / "dinov3-b" / "best_lora"
    model = write_export(base)
    (base / "final.pt").write_bytes(b"state of the whole training")
    return base, adapter, write_adapter(adapter, base, model)


@pytest.fixture
def pixels():
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def features(encoder, pixels):
    with torch.no_grad():
        return encoder.network(pixels)


def test_merged_features_are_those_of_the_adapter_beside_its_base(config, trained, pixels):
    base, adapter, adapted = trained
    encoder = build_encoder(replace(config, lora_path=str(adapter)))
    with torch.no_grad():
        unmerged = adapted(pixels).pooler_output
    assert (features(encoder, pixels) - unmerged).abs().max().item() < 1e-5
    alone = build_encoder(replace(config, ssl_checkpoint=str(base)))
    assert (features(alone, pixels) - unmerged).abs().max().item() > 1e-2
    assert not any("lora" in name for name, _ in encoder.network.named_parameters())
    assert {parameter.dtype for parameter in encoder.network.parameters()} == {torch.float32}


def test_an_unread_encoder_is_known_by_the_same_record_and_gets_the_same_values(config, trained, pixels):
    _, adapter, _ = trained
    config = replace(config, lora_path=str(adapter))
    unread, whole = build_encoder(config, unread=True), build_encoder(config)
    assert all(parameter.is_meta for parameter in unread.network.parameters())
    assert unread.weights.to_json() == whole.weights.to_json()
    assert torch.equal(features(with_values(unread), pixels), features(whole, pixels))
    assert with_values(whole) is whole


def test_the_sidecar_names_base_and_adapter_with_their_hashes(config, trained):
    base, adapter, _ = trained
    record = build_encoder(replace(config, lora_path=str(adapter))).weights.to_json()
    assert (record["source"], record["file"]) == (str(base), "model.safetensors")
    assert record["adapter"]["source"] == str(adapter)
    assert len(record["sha256"]) == len(record["adapter"]["sha256"]) == 64
    assert record["sha256"] != record["adapter"]["sha256"]
    json.dumps(record)


@pytest.mark.parametrize("named", ["", "final.pt", "final"], ids=["folder", "final.pt", "final of shards"])
def test_an_export_alone_is_the_variant_without_lora(config, trained, named, pixels):
    base, _, adapted = trained
    encoder = build_encoder(replace(config, ssl_checkpoint=str(base / named)))
    with torch.no_grad(), adapted.disable_adapter():
        assert torch.allclose(features(encoder, pixels), adapted(pixels).pooler_output, atol=1e-6)
    assert "adapter" not in encoder.weights.to_json()


def test_a_moved_export_is_named_by_ssl_checkpoint(trained, tmp_path):
    base, adapter, _ = trained
    moved = tmp_path / "elsewhere"
    base.rename(moved)
    with pytest.raises(UserError, match=r"was trained on .*, which is not there; give --ssl_checkpoint its new place"):
        find_adapted(adapter)
    assert find_adapted(adapter, str(moved)).path == moved


def test_a_relative_record_is_found_beside_the_adapter(trained):
    base, adapter, _ = trained
    facts = json.loads((adapter / "provenance.json").read_text())
    write_json(adapter / "provenance.json", facts | {"base_checkpoint": "../../ssl/dinov3-vitb16/final.pt"})
    found = find_adapted(adapter)
    assert found.path.resolve() == base
    assert ".." not in found.source, "what sidecars, messages and reports name"


def test_an_adapter_of_another_base_is_refused_with_both_named(trained, tmp_path):
    _, adapter, _ = trained
    write_export(tmp_path / "other", seed=1)
    with pytest.raises(UserError) as error:
        find_adapted(adapter, str(tmp_path / "other"))
    assert str(adapter) in str(error.value)
    assert str(tmp_path / "other") in str(error.value)
    assert find_export(str(tmp_path / "other")).sha256 in str(error.value)


def test_an_adapter_of_another_shape_is_refused_even_where_the_hash_was_forged(trained, tmp_path):
    _, adapter, _ = trained
    wide = write_export(tmp_path / "wide", hidden_size=96)
    with pytest.raises(UserError, match="this adapter is not for DINOv3ViTModel"):
        apply_adapter(wide, adapter)


def test_an_adapter_with_parts_that_find_no_place_is_refused(trained, tmp_path):
    """peft itself would skip the layers that are not there."""
    _, adapter, _ = trained
    shallow = write_export(tmp_path / "shallow", num_hidden_layers=1)
    with pytest.raises(UserError, match=r"of 8 adapted layers 4 have no place in the network \(.*layer\.1"):
        apply_adapter(shallow, adapter)


def test_an_incomplete_adapter_folder_says_what_is_missing(trained):
    _, adapter, _ = trained
    (adapter / "provenance.json").unlink()
    with pytest.raises(UserError, match=r"but provenance\.json is not there; name the best_lora folder itself"):
        find_adapted(adapter)
    write_json(adapter / "provenance.json", {"model": "dinov3-b"})
    with pytest.raises(UserError, match="base_checkpoint, base_sha256 missing"):
        find_adapted(adapter)


def test_what_is_no_export_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"expected a Stage 1 export, a folder with config\.json"):
        find_export(str(tmp_path / "nowhere" / "final.pt"))


def test_the_state_of_an_unfinished_training_is_not_taken_for_its_export(trained):
    base, _, _ = trained
    (base / "step_000100.pt").write_bytes(b"state in the middle of a training")
    with pytest.raises(UserError, match=r"step_000100\.pt: the state of an unfinished training"):
        find_export(str(base / "step_000100.pt"))


def test_without_flags_the_best_adapter_of_pretrain_is_taken(config, trained, workspace):
    _, adapter, _ = trained
    place = workspace / "pretrain" / "checkpoints" / "dinov3-b" / "best_lora"
    assert is_available(config) == (False, config.access)
    with pytest.raises(UserError) as error:
        choose_weights(config)
    for said in (str(place), "ssl_pretrain_dinov3.py --model dinov3-vitb16", "finetune_lora.py --model dinov3-b"):
        assert said in str(error.value)
    place.parent.mkdir(parents=True)
    adapter.rename(place)
    assert choose_weights(config).adapter.path.parent == place
    assert is_available(config) == (True, str(place))


def test_flags_that_contradict_each_other_are_refused(config, checkout):
    with pytest.raises(UserError, match="--weights together with --lora_path"):
        choose_weights(replace(config, lora_path="x"), "random")
    published = read_encoder_config(checkout / "models" / "DinoV3-ViT-B16" / "config.yaml")
    with pytest.raises(UserError, match="use its CataractFT folder"):
        choose_weights(replace(published, lora_path="x"))


def test_the_flags_of_an_extraction_reach_the_encoder(config):
    chosen = with_options(config, ExtractionConfig(lora_path="a", ssl_checkpoint="b"))
    assert (chosen.lora_path, chosen.ssl_checkpoint) == ("a", "b")


def test_vjepa2_takes_adapters_of_its_encoder(checkout, tmp_path):
    """Trained on transformers' whole model by the pattern of ssl-spec section 7, merged into the encoder alone."""
    from peft import LoraConfig, get_peft_model
    from transformers import VJEPA2Config, VJEPA2Model

    sizes = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3, "crop_size": 32}
    small = {"pred_hidden_size": 24, "pred_num_hidden_layers": 1, "pred_num_attention_heads": 2}
    model = VJEPA2Model(VJEPA2Config(**sizes, **small)).eval()
    model.save_pretrained(tmp_path / "export")
    pattern = r"encoder\.layer\.\d+\.attention\.(query|key|value|proj)"
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=pattern)).eval()
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    adapted.save_pretrained(tmp_path / "lora")
    facts = {"base_checkpoint": "../export", "model": "vjepa2-l"}
    write_json(
        tmp_path / "lora" / "provenance.json", facts | {"base_sha256": find_export(str(tmp_path / "export")).sha256}
    )
    full = read_encoder_config(checkout / "models" / "V-JEPA2-ViT-L-CataractFT" / "config.yaml")
    settings = replace(full, feature_dim=48, clip_len=8, preprocessing=replace(full.preprocessing, size=32))
    encoder = build_encoder(replace(settings, lora_path=str(tmp_path / "lora")))
    clips = torch.randn(1, 8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = adapted(clips, skip_predictor=True).last_hidden_state.mean(1)
    assert (features(encoder, clips) - expected).abs().max().item() < 1e-5
    assert encoder.network.tokens(clips).shape == (1, 4, 48)


# --- adapters of other people -------------------------------------------------------------------------------------


@pytest.fixture
def foreign(trained):
    """The adapter without its provenance, as somebody else hands it over, and its base."""
    base, adapter, adapted = trained
    (adapter / "provenance.json").unlink()
    return base, adapter, adapted


def test_an_adapter_of_unknown_origin_is_merged_into_a_named_base_as_unverified(config, foreign, pixels, caplog):
    base, adapter, adapted = foreign
    encoder = build_encoder(replace(config, lora_path=str(adapter), ssl_checkpoint=str(base)))
    with torch.no_grad():
        assert (features(encoder, pixels) - adapted(pixels).pooler_output).abs().max().item() < 1e-5
    record = encoder.weights.to_json()
    assert (record["source"], record["adapter"]["verified"]) == (str(base), False)
    assert f"{adapter}: does not record its base; merged into {base}, unverified" in caplog.messages


def test_a_file_of_weights_is_a_base_too(config, foreign):
    base, adapter, _ = foreign
    source = choose_weights(replace(config, lora_path=str(adapter), ssl_checkpoint=str(base / "model.safetensors")))
    assert (source.path, source.adapter.is_verified) == (base / "model.safetensors", False)


def test_without_a_named_base_it_is_the_published_one(config, foreign, pixels):
    base, adapter, adapted = foreign
    with pytest.raises(UserError, match="has no published ones: name them by --ssl_checkpoint"):
        choose_weights(replace(config, lora_path=str(adapter)))
    published = replace(config, lora_path=str(adapter), weights=str(base))
    encoder = build_encoder(published)
    with torch.no_grad():
        assert (features(encoder, pixels) - adapted(pixels).pooler_output).abs().max().item() < 1e-5


def rename_adapter(adapter, rename) -> None:
    tensors = {rename(key): value for key, value in load_file(adapter / "adapter_model.safetensors").items()}
    save_file(tensors, adapter / "adapter_model.safetensors")


@pytest.mark.parametrize(
    "rename",
    [
        lambda key: key.replace("base_model.model.", "base_model.model.backbone."),
        lambda key: key.replace("model.model.layer.", "model.layer."),
    ],
    ids=["inside another network", "older transformers"],
)
def test_layers_are_found_by_the_end_of_their_names(config, foreign, pixels, rename):
    base, adapter, adapted = foreign
    rename_adapter(adapter, rename)
    encoder = build_encoder(replace(config, lora_path=str(adapter), ssl_checkpoint=str(base)))
    with torch.no_grad():
        assert (features(encoder, pixels) - adapted(pixels).pooler_output).abs().max().item() < 1e-5


def test_the_scale_of_single_layers_survives_other_names(config, foreign, pixels):
    base, adapter, _ = foreign
    settings = json.loads((adapter / "adapter_config.json").read_text())
    settings |= {"alpha_pattern": {"layer.0.attention.q_proj": 0}, "rank_pattern": {"layer.0.attention.q_proj": 4}}
    write_json(adapter / "adapter_config.json", settings)
    rename_adapter(adapter, lambda key: key.replace("model.model.layer.", "model.layer."))
    merged = build_encoder(replace(config, lora_path=str(adapter), ssl_checkpoint=str(base))).network.state_dict()
    plain = build_encoder(replace(config, ssl_checkpoint=str(base))).network.state_dict()
    changed = {key for key, value in merged.items() if not torch.equal(value, plain[key])}
    assert len(changed) == 7
    assert not any("layer.0.attention.q_proj" in key for key in changed)


def test_an_adapter_of_older_peft_is_a_torch_file(config, foreign, pixels):
    base, adapter, adapted = foreign
    torch.save(load_file(adapter / "adapter_model.safetensors"), adapter / "adapter_model.bin")
    (adapter / "adapter_model.safetensors").unlink()
    encoder = build_encoder(replace(config, lora_path=str(adapter), ssl_checkpoint=str(base)))
    assert encoder.weights.adapter.path.name == "adapter_model.bin"
    with torch.no_grad():
        assert (features(encoder, pixels) - adapted(pixels).pooler_output).abs().max().item() < 1e-5


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"peft_type": "IA3"}, "expected a LoRA adapter of peft, found peft_type 'IA3'"),
        ({"modules_to_save": ["norm"]}, r"changes more than LoRA's two factors \(modules_to_save\)"),
        ({"bias": "all"}, r"two factors \(bias\)"),
        ({"init_lora_weights": "pissa"}, r"two factors \(init_lora_weights: pissa\)"),
        ({"megatron_config": {"a": 1}, "megatron_core": "os"}, r"two factors \(megatron_config\)"),
        ({"r": "four"}, "r: expected a whole number, found 'four'"),
        ({"r": 1_000_000_000}, r"rank 1000000000 in adapter_config\.json, but \d+ in its tensors"),
    ],
    ids=["kind", "modules", "bias", "start", "import", "rank", "huge rank"],
)
def test_an_adapter_that_cannot_be_merged_says_why(config, foreign, settings, complaint):
    base, adapter, _ = foreign
    write_json(adapter / "adapter_config.json", json.loads((adapter / "adapter_config.json").read_text()) | settings)
    with pytest.raises(UserError, match=complaint) as error:
        build_encoder(replace(config, lora_path=str(adapter), ssl_checkpoint=str(base)))
    assert "\n" not in str(error.value)


def test_a_users_adapter_as_it_circulates(reference_data, checkout):
    folder = reference_data / "cases" / "weights"
    if not folder.is_dir():
        pytest.skip(f"no such files in {folder}")
    tiny = read_encoder_config(checkout / "models" / "DinoV3-Tiny" / "config.yaml")
    base = str(folder / "dinov3_meta_release.pth")
    encoder = build_encoder(replace(tiny, lora_path=str(folder / "user_adapter"), ssl_checkpoint=base))
    plain = build_encoder(tiny, base)
    record = encoder.weights.to_json()
    assert (record["source"], record["adapter"]["verified"]) == (base, False)
    # its second factors are zero: never trained
    given = encoder.network.state_dict()
    assert all(torch.equal(given[key], value) for key, value in plain.network.state_dict().items())

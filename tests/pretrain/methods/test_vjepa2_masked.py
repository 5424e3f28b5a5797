"""The masked encoder and the predictor, against the stock networks: nothing hidden is seen, every place is its own."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from transformers import VJEPA2Model

from common.base.runtime import UserError, generator
from pretrain.backbones import start_backbone
from pretrain.methods.vjepa2 import VJEPA2, embed, encode, predict
from pretrain.objectives.masks_video import TokenMasks
from tests.pretrain.methods.vjepa2_clips import OPTIONS, TINY


def network(seed: int = 1) -> VJEPA2Model:
    """A tiny network whose mask tokens and norms are not those of the start, so that every one can be told apart."""
    found, _ = start_backbone(TINY, "random", seed=seed)
    with torch.no_grad():
        for number, parameter in enumerate(found.parameters()):
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator("network", seed, number)))
    return found.eval()


@pytest.fixture
def clips() -> torch.Tensor:
    """Normalised clips `(2, 8, 3, 64, 64)`: 4 x 4 x 4 tokens."""
    return torch.randn(2, 8, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def masks() -> TokenMasks:
    """6 tokens of context and 20 targets of 64, others of either sample, in no order."""
    orders = [torch.randperm(64, generator=generator("order", row)) for row in range(2)]
    return TokenMasks(torch.stack([o[:6] for o in orders]), torch.stack([o[6:26] for o in orders]))


# encoder


def test_all_places_give_the_stock_output(clips):
    model = network()
    expected = model(clips, skip_predictor=True).last_hidden_state
    tokens = embed(model.encoder, clips)
    torch.testing.assert_close(encode(model.encoder, tokens), expected, rtol=1e-5, atol=1e-5)
    places = torch.arange(64).expand(2, -1)
    torch.testing.assert_close(encode(model.encoder, tokens, places), expected, rtol=1e-5, atol=1e-5)


def with_other_hidden_pixels(clips: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
    """The clips with noise wherever no context token looks."""
    seen = torch.zeros(len(clips), 64).scatter(1, context, 1.0).view(-1, 1, 4, 4, 4)
    seen = F.interpolate(seen, scale_factor=(2, 16, 16)).transpose(1, 2)
    return torch.where(seen.bool(), clips, torch.randn(clips.shape, generator=torch.Generator().manual_seed(1)))


def test_hidden_pixels_do_not_reach_the_context(clips, masks):
    model, others = network(), with_other_hidden_pixels(clips, masks.context)
    assert (clips != others).float().mean() > 0.8
    one, other = (encode(model.encoder, embed(model.encoder, each), masks.context) for each in (clips, others))
    assert one.shape == (2, 6, 48)
    assert torch.equal(one, other)
    stock = [model(each, context_mask=[masks.context], target_mask=[masks.target]) for each in (clips, others)]
    assert not torch.allclose(*(each.masked_hidden_state for each in stock), atol=0.1)


def test_places_give_the_positions(clips, masks):
    """The order in which tokens are kept does not matter; where they were does."""
    encoder = network().encoder
    tokens = embed(encoder, clips)
    found = encode(encoder, tokens, masks.context)
    torch.testing.assert_close(encode(encoder, tokens, masks.context.flip(1)).flip(1), found, rtol=1e-5, atol=1e-5)
    elsewhere = (masks.context + 4) % 64  # the same tokens a row below
    moved = torch.zeros_like(tokens).scatter(1, elsewhere[..., None].expand(-1, -1, 48), gather(tokens, masks.context))
    assert not torch.allclose(encode(encoder, moved, elsewhere), found, atol=1e-2)


def gather(tokens: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    return torch.stack([own[where] for own, where in zip(tokens, places, strict=True)])


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 8, 3, 32, 32), r"clips of \(32, 32\) pixels .* those of 64 squared"),
        ((1, 8, 3, 64, 48), r"clips of \(64, 48\) pixels"),
        ((1, 7, 3, 64, 64), "clips of 7 frames, which do not divide by 2"),
    ],
)
def test_clips_that_the_network_would_misread_are_refused(shape, message):
    with pytest.raises(ValueError, match=message):
        embed(network().encoder, torch.zeros(shape))


# predictor


def test_both_ways_to_drive_the_predictor_agree(clips, masks):
    """transformers' own takes the context out of a whole clip's states, and always the mask token 1."""
    model = network()
    context = encode(model.encoder, embed(model.encoder, clips), masks.context)
    whole = torch.zeros(2, 64, 48).scatter(1, masks.context[..., None].expand(-1, -1, 48), context)
    expected = model.predictor(whole, [masks.context], [masks.target]).last_hidden_state
    found = predict(model.predictor, context, masks, mask_token=1)
    assert found.shape == (2, 20, 48)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(predict(model.predictor, context, masks, mask_token=0), expected, atol=1e-2)


def test_predictions_come_in_the_order_of_targets(clips, masks):
    model = network()
    context = encode(model.encoder, embed(model.encoder, clips), masks.context)
    found = predict(model.predictor, context, masks)
    turned = predict(model.predictor, context, TokenMasks(masks.context, masks.target.flip(1)))
    torch.testing.assert_close(turned.flip(1), found, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(turned, found, atol=1e-3)


def test_the_trained_mask_token_is_found(caplog):
    caplog.set_level("INFO")
    backbone = start_backbone(TINY, "random")[0]
    assert VJEPA2(backbone, OPTIONS, TINY).mask_token == 0
    with torch.no_grad():
        backbone.predictor.embeddings.mask_tokens[3] = 0.5
    assert VJEPA2(backbone, OPTIONS, TINY).mask_token == 3
    assert "mask token 3 of the predictor is trained; norms at the start: 0 0 0 2.45 0 0" in caplog.text
    assert VJEPA2(backbone, replace(OPTIONS, mask_token=7), TINY).mask_token == 7
    with pytest.raises(UserError, match="--mask_token 10: the predictor has 10 mask tokens, from 0 on"):
        VJEPA2(backbone, replace(OPTIONS, mask_token=10), TINY)

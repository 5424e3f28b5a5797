"""The contract of an encoder (`base`) as checks that run on any: each gives what is wrong, or None.

They run on noise. A network on the meta device has no values, so that of it the shape of the features alone is checked.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from common.encoders.base import ClipEncoder, Encoder

BATCH_TOLERANCE = 1e-5  # of the largest value: sums in another order
ALIKE = {"rtol": 1e-3, "atol": 1e-6}


def noise(encoder: Encoder, count: int) -> Tensor:
    """Seeded pictures or clips as the encoder takes them: `(count, [clip_len,] 3, size, size)` uint8."""
    side = encoder.preprocessing.size
    window = (encoder.clip_len,) if isinstance(encoder, ClipEncoder) else ()
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, *window, 3, side, side), generator=generator, dtype=torch.uint8)


def gives_rows_of_floats(encoder: Encoder) -> str | None:
    """Features are `(N, feature_dim)` float32 on the CPU, all finite."""
    features = encoder.encode(noise(encoder, 3))
    found = tuple(features.shape), features.dtype, features.device.type
    if found != ((3, encoder.feature_dim), torch.float32, "cpu"):
        return f"features of 3 inputs are {found}, expected (3, {encoder.feature_dim}) float32 on the CPU"
    return None if features.isfinite().all() else "some features are not finite"


def tells_inputs_apart(encoder: Encoder) -> str | None:
    """Two inputs have two features."""
    first, second = encoder.encode(noise(encoder, 2))
    return "two different inputs give the same features" if torch.allclose(first, second, **ALIKE) else None


def ignores_the_batch(encoder: Encoder) -> str | None:
    """An input's features do not depend on what is in the batch with it."""
    inputs = noise(encoder, 3)
    together = encoder.encode(inputs)
    alone = torch.cat([encoder.encode(one) for one in inputs.split(1)])
    difference = (together - alone).abs().max().item()
    allowed = BATCH_TOLERANCE * max(1.0, together.abs().max().item())
    return f"features depend on the batch, by up to {difference:.2g}" if difference > allowed else None


def repeats_itself(encoder: Encoder) -> str | None:
    """The same input gives the same bits."""
    inputs = noise(encoder, 2)
    return (
        None if torch.equal(encoder.encode(inputs), encoder.encode(inputs)) else "the same input gives other features"
    )


def is_frozen(encoder: Encoder) -> str | None:
    """Every part is in evaluation mode, and no parameter learns."""
    if any(module.training for module in encoder.network.modules()):
        return "a part of the network is in training mode"
    return "a parameter asks for gradients" if any(p.requires_grad for p in encoder.network.parameters()) else None


def gives_tokens_over_time(encoder: Encoder) -> str | None:
    """A clip encoder with tokens gives one a tubelet, whatever the batch; others pass."""
    if not isinstance(encoder, ClipEncoder) or encoder.tubelet is None:
        return None
    inputs = noise(encoder, 2)
    tokens = encoder.encode_tokens(inputs)
    expected = 2, encoder.clip_len // encoder.tubelet, encoder.feature_dim
    if tuple(tokens.shape) != expected:
        return f"tokens of 2 clips are {tuple(tokens.shape)}, expected {expected}"
    alone = encoder.encode_tokens(inputs[1:])[0]
    return None if torch.allclose(alone, tokens[1], atol=BATCH_TOLERANCE) else "tokens depend on the batch"


CONTRACT: tuple[Callable[[Encoder], str | None], ...] = (
    gives_rows_of_floats,
    tells_inputs_apart,
    ignores_the_batch,
    repeats_itself,
    is_frozen,
    gives_tokens_over_time,
)


def breaches(encoder: Encoder) -> list[str]:
    """What an encoder breaks of the contract, errors of its network included; [] = it holds.

    Of a network on the meta device the width of the features and that it is frozen.
    """
    on_meta = any(parameter.is_meta for parameter in encoder.network.parameters())
    said = [_said(check, encoder) for check in ((_has_its_width, is_frozen) if on_meta else CONTRACT)]
    return [complaint for complaint in said if complaint]


def _has_its_width(encoder: Encoder) -> str | None:
    with torch.inference_mode():
        features = encoder.network(noise(encoder, 2).to("meta", torch.float32))
    expected = 2, encoder.feature_dim
    return None if features.shape == expected else f"features of 2 inputs are {tuple(features.shape)}, not {expected}"


def _said(check: Callable[[Encoder], str | None], encoder: Encoder) -> str | None:
    try:
        return check(encoder)
    except Exception as error:  # whatever a network made elsewhere raises on a picture is a breach
        return f"{check.__name__.strip('_').replace('_', ' ')}: {type(error).__name__}: {error}"

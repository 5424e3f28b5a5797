"""The extraction that makes features like those a head was trained on."""

from __future__ import annotations

from typing import Any

from common.config import EncoderConfig, ExtractionConfig


def extraction_like(identity: dict[str, Any], encoder: EncoderConfig, weights: str | None = None) -> ExtractionConfig:
    """Options that repeat how features with this `identity` (a sidecar's) were made.

    `weights` says where the encoder's weights are now, when that is elsewhere.
    """
    window = identity["window"] or {}
    return ExtractionConfig(
        fps=identity["sampling"]["fps"],
        pooling=identity["pooling"] if encoder.poolings else None,
        crop=identity["preprocessing"]["crop"],
        clip_len=window.get("clip_len"),
        stride=window.get("stride", 1),
        mode=window.get("mode", "window"),
        dtype=identity["dtype"],
        decoder=identity["decoder"],
        **_weight_options(identity["weights"], encoder, weights),
    )


def _weight_options(record: dict[str, Any], encoder: EncoderConfig, weights: str | None) -> dict[str, str]:
    """The flags that choose the recorded weights."""
    source = weights or record["source"]
    if record.get("adapter"):
        return {"ssl_checkpoint": source, "lora_path": record["adapter"]["source"]}
    if source == encoder.weights:
        return {}
    return {"ssl_checkpoint" if encoder.weights.startswith("pretrain:") else "weights": source}

"""Recipes of self-supervised training, one a file; `pretrain.engine.method` is what they have in common."""

"""Encoder families: one module each, with a `build(config, source)`."""

"""Masks from the maps of an encoder: a decoder is trained, predicts, and is scored."""

"""Frozen networks that turn frames into feature vectors: the contract, a folder's config, and how one is built."""

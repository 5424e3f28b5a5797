"""Annotated releases that Stage 2 learns from, read from their tables."""

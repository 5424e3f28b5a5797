"""One training engine for every self-supervised recipe: steps, processes, checkpoints, health, export."""

"""The mathematics of self-supervised training: losses, targets, masks, schedules."""

"""The state of a training on the disk: whole files, folders in parts, and where they lie."""

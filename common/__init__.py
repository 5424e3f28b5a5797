"""Shared logic of the benchmark. A module here is a command (`python -m common.X`), a folder is a room.

The rooms stand in the order in which the data goes; each imports only rooms above it:

    base      the ground: errors, files, locations, entries of folders, options, wording
    dataset   phases, segments, folds, manifests: what a data set is
    scoring   measures, protocols, intervals, tests of significance (no torch)
    video     a file to decoded, timed, resized frames
    encoders  frozen networks: the contract, config.yaml, families/, weights/
    features  videos through an encoder to `.npy` files with sidecars
    head      MS-TCN++ or another head on those files: training, prediction, folds, new videos
    tasks     what else features tell: tools, criteria, clips, masks; learned, scored, recorded
    checks    what `audit` and `doctor` look at
    reports   prediction files to tables, pictures/, workbook/, page/
"""

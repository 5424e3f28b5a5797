"""The parts of a data set: phases, segments, folds; and the manifests of the videos that weights have seen."""

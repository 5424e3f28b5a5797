"""What a data set is: phases, segments, folds, and the manifests of what weights have seen."""

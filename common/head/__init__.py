"""The temporal head on cached features: settings, training, prediction, folds, new videos."""

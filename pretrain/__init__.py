"""Pretraining on unlabelled cataract video (stages 1 to 3)."""

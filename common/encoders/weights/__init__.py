"""Weights of the encoders: where they are, how they are downloaded, read and adapted."""

"""From videos to feature files: decoding ahead, batches, windows, files with sidecars, shards, estimates."""

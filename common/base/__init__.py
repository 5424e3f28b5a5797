"""The ground that every room stands on: errors and files, locations, options, wording, prefetching, tracking."""

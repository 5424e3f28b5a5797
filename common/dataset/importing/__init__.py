"""How a release of the field becomes a data set: what its reader finds, labels from tables and intervals, lists, files written."""

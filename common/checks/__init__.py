"""The checks of a data set that `audit` runs, and those of a machine that `doctor` runs."""

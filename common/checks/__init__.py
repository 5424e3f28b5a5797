"""What `audit` looks at in a data set and `doctor` on a machine."""

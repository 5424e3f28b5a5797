"""What else a ranking of encoders could owe itself to: floors under them, settings chosen inside the training part, overconfidence."""

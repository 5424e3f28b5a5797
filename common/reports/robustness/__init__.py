"""Whether a ranking of encoders holds: floors under its rows, and its order under other heads, scales and settings."""

"""Networks of the head: one module each."""

"""Networks of the head, one module each, and the decoding of what they say."""

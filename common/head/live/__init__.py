"""Online prediction: a head with state, the frames of a source as they come, and what is said of them."""

"""Other tasks on the same features: which classes a frame has, the class of a clip; what is learned, scored and recorded."""

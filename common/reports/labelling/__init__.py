"""What a prediction saves a person who labels, by encoder and by the number of labelled videos; and which to label next."""

"""Which videos to label next: rules that rank unlabelled ones, what they look at, and a trial of them on labelled sets."""

"""LoRA on labelled clips: data, adapters, classifier, training."""

"""Stage 2: LoRA on labelled clips: data, adapters, classifier, training."""

"""What a model in the repository promises: card, tensors, preprocessing, manifest, paths and config.pbtxt."""

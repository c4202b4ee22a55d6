"""From a volume and a model to probabilities, masks and files."""

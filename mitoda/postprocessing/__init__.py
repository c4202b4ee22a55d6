"""From probabilities to masks and instances: boundaries on membranes, small components removed, touching ones split."""

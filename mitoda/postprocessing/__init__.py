"""From probabilities to masks: boundaries on membranes, small components removed."""

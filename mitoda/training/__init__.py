"""Training: from a plan to adapted weights, checks and a report."""

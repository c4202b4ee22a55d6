"""Scores against labels, measures of mitochondria, and checks of a mask without labels."""

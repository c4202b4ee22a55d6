"""Scores of a prediction against labels."""

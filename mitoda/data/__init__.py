"""Pairs of sections, their geometry, sampling and augmentation."""

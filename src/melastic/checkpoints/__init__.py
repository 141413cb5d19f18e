"""Classifiers on disk, on the hub, and from other code."""

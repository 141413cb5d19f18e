"""Batches to a trained classifier."""

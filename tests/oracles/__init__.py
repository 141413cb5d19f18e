"""Slow, obvious implementations."""

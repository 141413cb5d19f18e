"""Tokens to tokens, never across clips."""

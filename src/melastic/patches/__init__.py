"""Spectrogram to tokens."""

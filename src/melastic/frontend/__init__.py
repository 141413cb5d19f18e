"""Waveform to spectrogram."""

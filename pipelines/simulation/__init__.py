"""Simulated raw data: phantom, coils, sampling patterns, header, writer."""

"""Noise of the receivers: its covariance from a noise scan, from this measurement or another."""

"""Compute table rows, confidence intervals and verdicts from a stored study."""

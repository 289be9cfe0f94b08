"""Measured speed: scripts run on purpose that print ratios. Never part of the tests."""

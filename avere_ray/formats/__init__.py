"""Preference data of other systems."""

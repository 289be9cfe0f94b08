"""Runs set side by side: what differs in their settings, what differs in their answers, and how sure that is."""

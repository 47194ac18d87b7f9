"""Alerts of what is unusual in the market."""

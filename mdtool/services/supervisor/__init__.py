"""Runs the services together, as child processes."""

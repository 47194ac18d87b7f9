"""The supervisor: services together, as child processes."""

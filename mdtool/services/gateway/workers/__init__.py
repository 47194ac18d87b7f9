"""A gateway of several processes on one port, and what they share."""

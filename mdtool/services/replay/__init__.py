"""The sender service: DBN files replayed to any number of receivers."""

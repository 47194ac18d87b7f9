"""The receiver service: order books of a sender's stream, as JSON lines."""

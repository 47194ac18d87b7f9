"""The receiver service: order books of a sender's stream, told as they change."""

"""What the gateway publishes: one module a feed."""

"""Everything that browsers and applications speak: REST and WebSocket."""

"""WebRTC signaling: rooms in which peers find each other, and the servers that help them."""

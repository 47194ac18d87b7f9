"""STOMP over WebSocket and SockJS: a broker of market data and signals."""

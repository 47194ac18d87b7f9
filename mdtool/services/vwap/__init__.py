"""The VWAP feed: rolling averages of the market as JSON lines over TCP."""

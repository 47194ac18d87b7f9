"""Floor 2: sans-I/O codecs, bytes in and messages out."""

"""The client of a TCP ingest server."""

"""The TCP ingest server."""

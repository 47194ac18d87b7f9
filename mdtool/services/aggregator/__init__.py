"""The aggregation engine: ticks in, bars and aggregates out, over gRPC."""

"""Prepared sets: Parquet shards with a manifest and a card; writing them, reading them, on disk or on the Hub."""

"""Captions. `captions_rules`, `java_tools` and `scoring` hold the functions; only `captions` imports `evaluate`."""

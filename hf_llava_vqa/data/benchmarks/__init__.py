"""One file a source: a `Benchmark` that reads the files as their owners publish them."""

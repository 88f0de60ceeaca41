"""The demo: a tiny LLaVA base trained from scratch, and VizWiz-format data with simulated annotators."""

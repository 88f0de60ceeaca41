"""Answerability. `answerability_rules` holds the plain functions; only `answerability` imports `evaluate`."""

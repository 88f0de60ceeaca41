"""VizWiz accuracy. `answer_rules` holds the plain functions; only `vizwiz_accuracy` imports `evaluate`."""

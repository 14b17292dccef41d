"""From settings to cells, their fingerprints, and the work left to do."""

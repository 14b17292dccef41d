"""From settings to cells, their fingerprints and what is still to be made."""

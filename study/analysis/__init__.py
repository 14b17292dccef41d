"""From what is stored to rows, intervals and verdicts."""

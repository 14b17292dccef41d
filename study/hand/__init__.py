"""Studies at hand: what there is, shown again, merged, compared, sent on."""

"""What a study looks like: plots, maps and animations, each drawn from its stored records."""

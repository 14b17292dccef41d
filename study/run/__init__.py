"""Makes what a plan lacks: images, timings, traces."""

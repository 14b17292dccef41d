"""A study: conf -> plan -> cells -> store -> report.

The only package that imports models, methods and eval. Its own modules stay apart by weight: config, build,
prompts, identity, plan and store import nothing heavy, so that a wrong input is refused before torch is
loaded."""

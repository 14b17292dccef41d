"""A study: config -> plan -> run -> store -> analysis -> report; commands call these stages.

The only package that imports models, methods and eval. config, plan and the store import nothing heavy, so
that a wrong input is refused before torch is loaded. No file imports a later stage."""

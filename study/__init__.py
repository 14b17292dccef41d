"""The stages of a study: config -> plan -> run -> store -> analysis -> report. Commands call these stages.

The only package that imports models, methods and eval. config, plan and the store import nothing heavy, so
that an invalid input is refused before torch is loaded. No module imports a later stage."""

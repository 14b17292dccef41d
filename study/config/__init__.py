"""From a command line to settings, configs and prompts."""

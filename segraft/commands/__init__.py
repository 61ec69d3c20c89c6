"""Commands that are not steps; see `COMMANDS` in segraft/__main__.py."""

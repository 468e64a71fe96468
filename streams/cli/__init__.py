"""The `driftledger` command: one module for each group of commands, mounted in main."""

"""The command line: the entry point, and the options and messages that commands share."""

"""The command line: one small file per sub-command, the only place that prints or exits.

A command parses, calls one function of the library, and prints what that returns. Everything that
takes time to import is imported inside the command.
"""

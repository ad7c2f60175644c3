"""A results folder as tables, figures and one page; it reads files and computes nothing.

`read` reads and checks the files; `tables`, `figures` and `page` show what is in them.
"""

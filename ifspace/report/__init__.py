"""A results folder as tables, figures and one page; files are read, nothing is computed anew.

`folder` reads and checks the files; `tables`, `plots` and `page` show what is in them.
"""

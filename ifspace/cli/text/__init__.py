"""What the commands print: tables, facts and drawings as text, and the values of JSON."""

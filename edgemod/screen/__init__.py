"""What people see, a file for each of ``commands/``: arguments in there, tables out here."""

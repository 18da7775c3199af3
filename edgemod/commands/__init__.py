"""What the command line can do: a file for each kind of command."""

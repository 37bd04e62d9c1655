"""The command line: one module per group of commands, one function per command; the logic is in other packages."""

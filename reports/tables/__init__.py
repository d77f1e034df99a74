"""Tables as text, one table a module, and their file formats."""

"""Tables as text, one per module, and their file formats."""

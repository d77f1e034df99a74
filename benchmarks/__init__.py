"""What is measured: specs, datasets, metrics and the input pipeline. Imports nothing else of this project."""

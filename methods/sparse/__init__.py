"""The embedded sparse engine: MinkowskiEngine's interface in plain PyTorch."""

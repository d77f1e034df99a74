"""What runs inside a container: the stage entry point, networks, pre-training methods, fine-tuning."""

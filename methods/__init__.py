"""Code that runs inside a stage: its entry point, networks, pre-training methods and fine-tuning."""

"""What is measured beside the sweeps: `harness bench`, `bench-training` and their like, a module each."""

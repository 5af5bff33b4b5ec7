"""Runs the jobs of a plan: here one after the other, or on Ray. The driver alone writes the store."""

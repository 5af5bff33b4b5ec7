"""The bench: trains, times, counts and reports what `arm_core` samples."""

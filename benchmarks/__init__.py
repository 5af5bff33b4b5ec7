"""What measures this project itself, a module each: `python -m benchmarks.training`. Not in the wheel.

A module's first part is a library that tests call, its last part the command. Importing this package loads nothing:
`benchmarks.gpu` runs where nothing but `arm_core` is at hand.
"""

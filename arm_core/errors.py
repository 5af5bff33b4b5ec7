"""The one exception that means "what you gave breaks a rule", so that a program can tell it from a bug."""


class InputError(ValueError):
    """A value given by the user breaks a rule.

    The message names the value, the rule and the remedy. The command line prints it and exits with
    code 2; every other exception is a fault of ours and keeps its traceback.
    """

"""What the commands do, apart from reading their options: a module each."""

"""What needs a library that the core does not: nothing in the core imports it."""

"""What the tests have pytest do: turns, what is skipped and told at the end, second tries, and a look at the process after each test."""

"""What makes a disk fail, a process die and a machine lose its power, what reads that, and the tests of that itself."""

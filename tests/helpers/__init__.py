"""What tests of several rooms use; a helper of one room lies beside its tests.

cache (what is fetched), commands (the command line in this process), configurations (written into a directory), desk_installation (what
the desk looks at), ports (that servers may listen on), processes (forked and ended), runs (runners for the tests of runners), waiting (the one way to wait).
"""

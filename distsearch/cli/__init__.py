"""The command `distsearch`: each group of commands in a file of its own, loaded when it is used.

Exit codes: 0 done; 1 it began and failed; 2 what was asked cannot be (nothing has begun); 130 after
Ctrl-C and 143 after SIGTERM, where the same command goes on.
"""

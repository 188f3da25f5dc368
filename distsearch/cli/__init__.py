"""The command `distsearch`: each group of commands in a file of its own, loaded when it is used.

Exit codes: 0 done; 1 it began and failed, or the search refuses it; 2 what was asked cannot be
(nothing has begun); 3 no driver runs the search, or it does not answer; 130 after Ctrl-C and 143
after SIGTERM, where the same command goes on; 141 when who reads the output has gone.
"""

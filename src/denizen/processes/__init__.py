"""Processes of this machine: started by a parent, perhaps as another user, and never outliving it.

children      a program as our child: its log, its end        accounts     as whom it runs
frames        what parent and worker say over a pipe          parenthood   the child's side: it ends with its parent
ports         where a server can listen
"""

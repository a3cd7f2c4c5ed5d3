"""Worker processes: started by a parent, told what to do over a pipe, never outliving it."""

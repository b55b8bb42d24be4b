"""One file per operation: what is measured, against what, and the work it has to do at the least."""

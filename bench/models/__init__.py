"""One file per model: what is measured, against what, and the work it has to do at the least."""

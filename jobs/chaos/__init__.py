"""`tlgan chaos`: a person's own spec, once undisturbed and once under blows; the results must be the same."""

"""One module a kind of job; see `jobs.execute` for what each must offer."""

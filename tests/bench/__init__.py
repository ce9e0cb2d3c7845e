"""Speed and quality figures against their targets. See README.md; `make bench` runs all of them."""

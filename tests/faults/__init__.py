"""What is done to the store: crashes at every call, random faults, damage, crowds. Each has a test and runs in full by
`python -m tests.bench.store_faults`.
"""

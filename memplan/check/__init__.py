"""Capacity checks: what a team asks of its jobs, and whether they keep to it. Torch-free.

settings.py finds a file and says what is in it, reader.py reads it (places.py knows its lines, budgets.py its sizes),
requests.py makes jobs of it, judge.py decides, and remedy.py says what would fit. baseline.py keeps what was needed
before, and diff.py lays two sets of jobs beside each other, which sides.py finds: in files, folders and, by
revisions.py, in git.
"""

"""The checks of the validate step.

files → facts (one row a sample) → tables → rules (a Great Expectations suite a table) → findings → page. All that a
rule looks at is measured once, in `facts` or `tables`; a rule is one expectation, and a finding is one row that the
expectation did not accept.
"""

"""The wire contract of driftledger: records, their bytes, their topics, and the clock they are stamped by.

Imports nothing of ours outside this package, so that producers, consumers and observers can use it alone.
"""

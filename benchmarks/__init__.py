"""What driftledger does on this machine: rate, cost, memory, latency. `python -m benchmarks --help`; see README.md."""

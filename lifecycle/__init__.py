"""driftledger: where events rest. Chunks of rows, the store that fills them, and the jobs that move them."""

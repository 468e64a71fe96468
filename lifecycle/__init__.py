"""driftledger: where events rest. Chunks of rows, the store that fills them, and the questions that it answers."""

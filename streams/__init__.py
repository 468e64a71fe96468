"""driftledger: sequencing and judging of events on Kafka. Pure folds and kernels, and the thin shells around them."""

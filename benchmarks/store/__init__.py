"""Our stores beside others: the same rows, the same questions, the same answers."""

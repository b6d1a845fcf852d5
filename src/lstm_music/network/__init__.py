"""The network: configuration, LSTM, heads, model, optimiser, and baselines without one."""

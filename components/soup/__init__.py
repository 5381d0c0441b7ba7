"""Averages of candidates: uniform and greedy, streamed tensor by tensor."""

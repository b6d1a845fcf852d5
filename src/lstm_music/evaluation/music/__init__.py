"""Judging composed music against real: measures, nearness, copies, repetition."""

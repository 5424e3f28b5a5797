"""Encoders over several data sets: one table, mean ranks, and whether a choice on one set carries over to another."""

"""Shared logic of the benchmark: everything that more than one encoder, fold or report needs."""

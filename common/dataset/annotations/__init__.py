"""Annotation files of ELAN, BORIS, VIA, Label Studio, WebVTT and tables: read to phases in time, and written from them."""

"""Decides and records: the only package that knows Azure VM Image Builder."""

"""Numba loops on raw arrays: no classes, no checks; a name says what its kernel fills."""

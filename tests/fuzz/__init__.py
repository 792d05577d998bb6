"""Garbage for everything that reads what others wrote: no exception leaves the library, and no
state changes.
"""

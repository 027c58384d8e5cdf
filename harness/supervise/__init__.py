"""Supervision of `stability run`: what ends a process costs the case that ended it, and no other.

Each process that measures says in a journal what it is about to do. The supervisor watches the
journals, ends what hangs, and starts again what died: the item in flight one magnitude at a time,
so that only the magnitudes that fail alone bear the verdict. Plain pytest does without all of it.
"""

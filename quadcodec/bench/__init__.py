"""Measure the codec and its rivals on a user's own masks: size, speed and a round-trip check of each.

`rows` are the codecs, ours and rivals; `measure` times them side by side; `plot` draws size against speed.
"""

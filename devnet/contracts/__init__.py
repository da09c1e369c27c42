"""The contracts of the development network: source, compiler run, and what was compiled.

``artifacts.json`` is committed, so that nobody needs a compiler; ``check`` compiles again and
compares.
"""

"""What every program of this project shows in the same form: log lines, probes, values.

What they show is their own: metrics, checks, which libraries are kept quiet.
"""

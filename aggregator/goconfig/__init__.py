"""Makes our configuration from that of Aligned's Go aggregator.

gofile.py reads its YAML, deployment.py its deployment JSON, convert.py says what becomes of each
key, probe.py asks an endpoint for its chain.
"""

"""The resource: models that parse it, and the CRD that is generated from them."""

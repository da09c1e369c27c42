"""Pure: what the objects of a resource should be. The same input gives the same bytes."""

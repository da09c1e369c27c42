"""Go net/rpc with gob as pure state machines: bytes in, calls and bytes out, no sockets."""

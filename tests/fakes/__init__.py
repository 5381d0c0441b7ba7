"""Small honest servers for the tests: they speak the real protocol over a socket."""

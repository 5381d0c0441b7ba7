"""A pipeline step is a pure function of content: recipe -> stages, identity, lookup, execute, publish, launch."""

"""Small honest servers: real sockets and real protocols, with faults on demand."""

"""The data card: what came in, what stays, why the rest does not, with examples; `card.json` for programs, `card.html` for people."""

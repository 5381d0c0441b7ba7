"""One typed, frozen recipe: what is trained, on what, how, and what it must beat. One file per section."""

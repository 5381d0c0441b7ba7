"""The composed vision-language model. These files also travel inside the model package, so they import only one another, torch, transformers and Pillow."""

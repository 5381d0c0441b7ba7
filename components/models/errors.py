"""The one error of this room. It is not the house's error type because these files also travel, alone, inside the model package."""


class ModelError(ValueError):
    """A model folder, an image or a conversation is not what the model needs. The message is one sentence for the user."""

"""`data.augment`: mild changes of pictures, for small sets."""

from pydantic import Field

from components.recipe.base import Section


class Augment(Section):
    """Every picture is seen as it is in one epoch, varied in the next `copies` ones, and so on. Mirrored only on request: letters would not be themselves."""

    copies: int = Field(default=3, ge=1, description="varied copies of each picture beside itself, copies")
    shift: float = Field(default=0.06, ge=0, le=0.5, description="largest shift, share of the side")
    scale: float = Field(default=0.12, ge=0, le=1, description="largest change of scale, a crop or a smaller picture, share of the size")
    stretch: float = Field(default=0.0, ge=0, le=1, description="largest change of width over height, share")
    rotate: float = Field(default=0.0, ge=0, le=180, description="largest turn, degrees")
    brightness: float = Field(default=0.15, ge=0, le=1, description="largest change of brightness, share")
    contrast: float = Field(default=0.15, ge=0, le=1, description="largest change of contrast, share")
    flip: bool = Field(default=False, description="mirror every second copy, left to right")

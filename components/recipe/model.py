"""`model`: the composed vision-language model, by its parts."""

from pydantic import Field, model_validator

from components.recipe.base import Section


class Vision(Section):
    """Qwen2-VL tower (NaViT style: native resolution, images packed, 2-D RoPE); its own merger is never used."""

    depth: int = Field(gt=0, description="transformer blocks")
    width: int = Field(gt=0, description="hidden size")
    heads: int = Field(gt=0, description="attention heads")
    mlp_ratio: float = Field(default=4, gt=0, description="MLP width over hidden size")
    patch: int = Field(default=14, gt=0, description="side of a patch, pixels")
    temporal_patch: int = Field(default=2, gt=0, description="frames a patch spans; a single picture is repeated")
    init_std: float = Field(default=0.02, gt=0, description="standard deviation of the random initialisation")


class Connector(Section):
    """LayerNorm, merge of `merge` x `merge` neighbouring patches, Linear, GELU, Linear: Qwen2-VL's PatchMerger, newly initialised."""

    merge: int = Field(default=2, gt=0, description="patches merged into one token, per side")


class Llm(Section):
    """Qwen2 decoder with plain 1-D RoPE."""

    hidden: int = Field(gt=0, description="hidden size")
    layers: int = Field(gt=0, description="decoder layers")
    heads: int = Field(gt=0, description="query heads")
    kv_heads: int = Field(gt=0, description="key and value heads")
    ffn: int = Field(gt=0, description="width of the SwiGLU MLP")
    vocab: int = Field(ge=264, description="largest size of the byte-level BPE vocabulary that is trained on the corpus, tokens")
    rope_theta: float = Field(default=1e6, gt=0, description="base of the rotary positions")
    rms_eps: float = Field(default=1e-6, gt=0, description="epsilon of RMSNorm")
    tie_embeddings: bool = Field(default=False, description="output head shares the input embedding")
    init_std: float = Field(default=0.02, gt=0, description="standard deviation of the random initialisation")


class Model(Section):
    """Vision tower -> connector -> language model, vision tokens in place of `<|image_pad|>`."""

    vision: Vision
    connector: Connector = Field(default_factory=Connector)
    llm: Llm
    min_pixels: int = Field(default=3136, gt=0, description="smaller pictures are enlarged to this area, pixels")
    max_pixels: int = Field(default=12_845_056, gt=0, description="larger pictures are reduced to this area, pixels")
    context: int = Field(default=4096, gt=0, description="longest sequence that the language model is built for, tokens")

    @model_validator(mode="after")
    def _shapes_fit(self) -> "Model":
        for part, width, heads in (("vision", self.vision.width, self.vision.heads), ("llm", self.llm.hidden, self.llm.heads)):
            if width % heads:
                raise ValueError(f"{part}: width {width} is not a multiple of {heads} heads")
        if self.llm.heads % self.llm.kv_heads:
            raise ValueError(f"llm: {self.llm.heads} heads are not a multiple of {self.llm.kv_heads} kv_heads")
        if self.vision.width // self.vision.heads % 4:
            raise ValueError(f"vision: 2-D RoPE needs a head size that is a multiple of 4, not {self.vision.width // self.vision.heads}")
        if self.min_pixels > self.max_pixels:
            raise ValueError(f"min_pixels {self.min_pixels} is larger than max_pixels {self.max_pixels}")
        return self

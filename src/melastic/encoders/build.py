"""The encoder that a configuration names."""

from torch import nn

from melastic.encoders.config import EncoderConfig, MambaConfig, WindowConfig
from melastic.encoders.mamba import Mamba
from melastic.encoders.transformer import Transformer
from melastic.encoders.windows import WindowEncoder


def build_encoder(config: EncoderConfig) -> nn.Module:
    """An encoder with random weights."""
    if isinstance(config, WindowConfig):
        return WindowEncoder(config)
    return Mamba(config) if isinstance(config, MambaConfig) else Transformer(config)

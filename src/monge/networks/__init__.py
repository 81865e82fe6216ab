"""Networks: plain `nn.Module`s for vectors and images, and the laws that encoders return."""

from monge.networks.codes import Dirac, Normal, NormalEncoder
from monge.networks.conv import conv_critic, conv_decoder, conv_encoder, conv_features
from monge.networks.mlp import Standardise, Unstandardise, mlp
from monge.networks.norm import BatchNorm

__all__ = [
    "BatchNorm",
    "Dirac",
    "Normal",
    "NormalEncoder",
    "Standardise",
    "Unstandardise",
    "conv_critic",
    "conv_decoder",
    "conv_encoder",
    "conv_features",
    "mlp",
]

"""Networks: plain `nn.Module`s for vectors and images, and the laws that encoders return."""

from monge.networks.codes import Dirac, GaussianDecoder, Normal, NormalEncoder
from monge.networks.conv import conv_critic, conv_decoder, conv_encoder, conv_features
from monge.networks.families import Family, Images, Published, Tables
from monge.networks.mlp import Standardise, Unstandardise, mlp
from monge.networks.norm import BatchNorm
from monge.networks.paper import paper_critic, paper_decoder, paper_encoder, published

__all__ = [
    "BatchNorm",
    "Dirac",
    "Family",
    "GaussianDecoder",
    "Images",
    "Normal",
    "NormalEncoder",
    "Published",
    "Standardise",
    "Tables",
    "Unstandardise",
    "conv_critic",
    "conv_decoder",
    "conv_encoder",
    "conv_features",
    "mlp",
    "paper_critic",
    "paper_decoder",
    "paper_encoder",
    "published",
]
